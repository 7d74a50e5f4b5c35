"""Opening the data sets of a run: their teacher vectors, their token ids, and the plan that draws from them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from lightning.fabric.utilities.distributed import _InfiniteBarrier
from lightning.pytorch import Trainer

from lightning_jv5.data.batches import ONLY_SET
from lightning_jv5.data.cache import fingerprint
from lightning_jv5.data.layouts import Layout, row_by_row
from lightning_jv5.data.mixture import MixturePlan, PlannedSet, weights_by_size
from lightning_jv5.data.row_checks import NEGATIVE_LIST, VECTORS_SUFFIX
from lightning_jv5.data.rows import BatchReader, TrainingRows
from lightning_jv5.data.source import Source
from lightning_jv5.data.stream import StreamedRows
from lightning_jv5.data.teacher_vectors import add_teacher_vectors
from lightning_jv5.data.tokenized import tokenize_columns
from lightning_jv5.data.training_batches import BatchesOfSet
from lightning_jv5.data.training_set import (
    SAMPLED_ROWS,
    TrainingSet,
    report_cut_texts,
    sample_fingerprint,
    table_fingerprint,
)
from lightning_jv5.module import EmbeddingModule
from lightning_jv5.rebuildable import Plain, describe

if TYPE_CHECKING:
    import datasets

_Made = TypeVar("_Made")


@dataclass
class OpenedSet:
    """A data set that is ready to be drawn from.

    Attributes:
        settings: As configured.
        batch_size: Rows in a global batch.
        reader: Makes batches of rows.
        rows: The rows; None for a stream.
        description: What a resumed run must find unchanged; plain data.
    """

    settings: TrainingSet
    batch_size: int
    reader: BatchReader
    rows: "datasets.Dataset | None"
    description: dict[str, Any]

    def batches(self, plan: MixturePlan, *, distinct_texts: bool, mark: dict[str, Any] | None) -> BatchesOfSet:
        """Return the set's batches.

        Raises:
            ValueError: If the texts of a stream are to be distinct.
        """
        if self.rows is not None:
            return TrainingRows(self.rows, self.reader, plan, distinct_texts=distinct_texts)
        if distinct_texts:
            raise ValueError(
                f"Got distinct_texts and the stream {self.reader.name!r}, in which there are no other rows to take. "
                "Set distinct_texts to false, or streaming to false."
            )
        settings = self.settings
        return StreamedRows(
            settings.source.stream,
            self.reader,
            self.batch_size,
            shuffle_rows=settings.shuffle_rows,
            seed=plan.seed,
            mark=mark,
        )


@dataclass
class SetOpener:
    """Opens data sets, on every process; what is computed is computed once and kept on disk.

    Args:
        trainer: Knows the processes.
        module: Knows the models.
        batch_size: Rows in a global batch of sets that do not say.
        teacher_vectors: ``"online"`` or ``"precompute"``.
        teacher_roles: The roles whose texts the teacher embeds.
    """

    trainer: Trainer
    module: EmbeddingModule
    batch_size: int
    teacher_vectors: str
    teacher_roles: Sequence[str]

    def open(self, name: str, training_set: TrainingSet) -> OpenedSet | None:
        """Return the set, or None where it is to be left out.

        Raises:
            ValueError: If its rows or settings do not fit.
        """
        if training_set.streaming:
            return self._open_stream(name, training_set)
        return self._open_rows(name, training_set)

    def _open_rows(self, name: str, training_set: TrainingSet) -> OpenedSet | None:
        origin = _origin(name, training_set.source)
        rows = training_set.source.load()
        layout = self._once_per_machine(lambda: training_set.layout(rows, origin))
        if not layout.size:
            return None
        sampled = [*layout.text_columns, *layout.grades]
        description: dict[str, Any] = {"data": sample_fingerprint(rows, sampled)}
        missing = self._columns_without_vectors(training_set, layout, rows.column_names)
        if self.module.teacher is not None and missing and self.teacher_vectors == "precompute":
            if NEGATIVE_LIST in missing:
                raise ValueError(
                    f"Got teacher_vectors 'precompute' for the lists in {NEGATIVE_LIST!r} of {origin}; need columns of "
                    "one text each. Compute them with `python -m lightning_jv5 embed`, or set teacher_vectors to "
                    "'online'."
                )
            taken = [column for column in missing if f"{column}{VECTORS_SUFFIX}" in rows.column_names]
            rows = rows.remove_columns([f"{column}{VECTORS_SUFFIX}" for column in taken])
            self.module.teacher.to(self.trainer.strategy.root_device)
            rows = add_teacher_vectors(
                rows,
                self.module.teacher,
                columns=training_set.teacher_prompts(missing),
                origin=origin,
                rank=self.trainer.global_rank,
                ranks=self.trainer.world_size,
                barrier=_wait,
            )
            missing = []
        reader = self._reader(name, training_set, layout, missing)
        if training_set.tokens == "cached":
            rows = self._once_per_machine(lambda: self._tokenized(rows, reader, origin))
            if self.trainer.is_global_zero:
                report_cut_texts(rows, training_set.tokenizations(layout, self.module.student.tokenization, name), name)
        return self._opened(training_set, reader, rows, description)

    def _open_stream(self, name: str, training_set: TrainingSet) -> OpenedSet:
        first: Any = next(iter(training_set.source.stream().with_format("arrow").iter(batch_size=SAMPLED_ROWS)))
        layout = row_by_row(first.column_names, 0, _origin(name, training_set.source))
        missing = self._columns_without_vectors(training_set, layout, first.column_names)
        if self.module.teacher is not None and missing and self.teacher_vectors == "precompute":
            raise ValueError(
                f"Got teacher_vectors 'precompute' and the stream {name!r}, which is never read as a whole. Compute "
                "its vectors with `python -m lightning_jv5 embed`, or set teacher_vectors to 'online'."
            )
        reader = self._reader(name, training_set, layout, missing)
        description: dict[str, Any] = {
            "data": table_fingerprint(first.select([*layout.text_columns, *layout.grades])),
            "shuffle_rows": training_set.shuffle_rows,
        }
        return self._opened(training_set, reader, None, description)

    def _once_per_machine(self, make: Callable[[], _Made]) -> _Made:
        """Let the first process of each machine fill the cache that its others then read, however long that takes.

        An error is raised on every process: the others meet it when they find no cache.
        """
        first = self.trainer.local_rank == 0
        with _InfiniteBarrier():
            made = make() if first else None
        return make() if made is None else made

    def _tokenized(self, rows: "datasets.Dataset", reader: BatchReader, origin: str) -> "datasets.Dataset":
        rows = tokenize_columns(rows, "student", reader.student, origin=origin)
        return tokenize_columns(rows, "teacher", reader.teacher, origin=origin)

    def _reader(self, name: str, training_set: TrainingSet, layout: Layout, missing: Sequence[str]) -> BatchReader:
        student = training_set.tokenizations(layout, self.module.student.tokenization, name)
        teacher = {}
        if self.module.teacher is not None and not self.module.teacher.reads_student_tokens:
            prompts = training_set.teacher_prompts(missing)
            teacher = {column: self.module.teacher.tokenization.column(role) for column, role in prompts.items()}
        roles = self._teacher_roles(training_set)
        return BatchReader(name, layout, student, teacher, roles, training_set.streaming)

    def _teacher_roles(self, training_set: TrainingSet) -> Sequence[str]:
        own = training_set.teacher_roles
        return self.teacher_roles if own is None else own

    def _columns_without_vectors(self, training_set: TrainingSet, layout: Layout, names: Sequence[str]) -> list[str]:
        """Return the columns whose teacher vectors are wanted and not among the columns; check those that are.

        Raises:
            ValueError: If vectors are known to be another teacher's, as any are where the student itself teaches.
        """
        wanted = [layout.columns[role] for role in self._teacher_roles(training_set) if role in layout.columns]
        columns = list(dict.fromkeys(column for group in wanted for column in group))
        # The vectors of a role are read together: with one column's missing, the others' do not help
        whole = [group for group in wanted if all(f"{column}{VECTORS_SUFFIX}" in names for column in group)]
        present = list(dict.fromkeys(column for group in whole for column in group))
        if self.module.teacher is not None and present:
            if self.module.teacher.reads_student_tokens:
                raise ValueError(
                    f"Got rows of {type(training_set.source).__name__} with teacher vectors of {', '.join(present)}, "
                    f"and the teacher {type(self.module.teacher).__name__}, whose vectors no rows have; need one of "
                    "the two. Leave those columns out, or leave out the teacher to train on them."
                )
            prompts = training_set.teacher_prompts(present)
            roles = {f"{column}{VECTORS_SUFFIX}": role for column, role in prompts.items()}
            training_set.source.check_vectors(self.module.teacher, roles)
        return [column for column in columns if column not in present]

    def _opened(
        self,
        training_set: TrainingSet,
        reader: BatchReader,
        rows: "datasets.Dataset | None",
        description: dict[str, Any],
    ) -> OpenedSet:
        columns: Plain = {role: list(names) for role, names in reader.layout.columns.items()}
        tokens: Plain = {column: tokenization.fingerprint for column, tokenization in reader.student.items()}
        description["texts"] = fingerprint(columns, tokens)  # what decides the student's tokens
        if training_set.teacher_roles is not None:
            description["teacher_roles"] = list(training_set.teacher_roles)
        if training_set.tuples is not None:
            description["tuples"] = describe(training_set.tuples)
        return OpenedSet(training_set, training_set.batch_size or self.batch_size, reader, rows, description)


def _wait() -> None:
    """Wait for all processes, also for longer than the strategy's barriers would."""
    with _InfiniteBarrier():
        pass


def _origin(name: str, source: Source) -> str:
    return type(source).__name__ if name == ONLY_SET else name


def plan_mixture(
    opened: Mapping[str, OpenedSet], sets: Mapping[str, TrainingSet], *, size_exponent: float, seed: int
) -> MixturePlan:
    """Return the plan over the opened sets.

    Raises:
        ValueError: If some sets have a weight and others none, or a stream has none beside other sets.
    """
    given = {name: sets[name].weight for name in opened}
    weights = {name: weight for name, weight in given.items() if weight is not None}
    sizes = {name: None if one.rows is None else one.reader.layout.size for name, one in opened.items()}
    if not weights and len(opened) == 1:
        weights = dict.fromkeys(opened, 1.0)
    elif not weights and None not in sizes.values():
        batches = {name: max(1, (size or 0) // opened[name].batch_size) for name, size in sizes.items()}
        weights = weights_by_size(batches, size_exponent)
    missing = [name for name in opened if name not in weights]
    if missing:
        raise ValueError(
            f"Got no weight for {', '.join(map(repr, missing))}; give all sets one, or none. Streams have no size to "
            "be weighed by, so with a stream all sets need one."
        )
    planned = {name: PlannedSet(sizes[name], one.batch_size, weights[name]) for name, one in opened.items()}
    return MixturePlan(planned, seed)
