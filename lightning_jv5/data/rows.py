"""Rows to batches: straight from Arrow buffers, without a Python object per token."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from lightning_jv5.data.batches import EvaluationBatch, RaggedTexts, TextBatch
from lightning_jv5.data.keyed import key
from lightning_jv5.data.layouts import Layout, RoleRows
from lightning_jv5.data.longest_first import texts_at
from lightning_jv5.data.mixture import Draw, MixturePlan
from lightning_jv5.data.row_checks import VECTORS_SUFFIX, Place, is_list, place_among
from lightning_jv5.data.tokenized import ColumnTokenizationLike, cut_column, ids_column
from lightning_jv5.data.vector_columns import SCALE, vectors

if TYPE_CHECKING:
    import datasets
    import pyarrow as pa

    from lightning_jv5.models.tokenization import Tokenization

_SUBSTITUTES = 8  # how many batches of rows are looked through for one batch of distinct texts


@dataclass
class BatchReader:
    """Makes batches of rows, as Arrow tables, of one data set.

    Args:
        name: Name of the data set, for logs and errors.
        layout: Which columns and rows the texts are in.
        student: How the student tokenises each column of texts, where its token ids are not among the columns.
        teacher: How the online teacher does.
        teacher_roles: The roles that the teacher embeds, from vectors in the rows or online.
        streamed: Whether rows are numbered within a batch only.
    """

    name: str
    layout: Layout
    student: Mapping[str, ColumnTokenizationLike]
    teacher: Mapping[str, ColumnTokenizationLike]
    teacher_roles: Sequence[str] = ("query", "document")
    streamed: bool = False

    def read(self, tables: Mapping[str, "pa.Table"], roles: Mapping[str, RoleRows], draw: Draw) -> TextBatch:
        """Return a batch.

        Args:
            tables: For each role the rows that its texts stand in, in order.
            roles: What the layout says about them.
            draw: What the batch was drawn as.
        """
        batch = TextBatch({}, dataset=self.name, step=draw.step, dataset_batch=draw.batch)
        for role, columns in self.layout.columns.items():
            table = tables[role]
            batch.texts[role], counts, cut = _ragged(table, columns, "student", self.student)
            batch.text_ids[role] = batch.texts[role].ids()
            batch.cut_texts += cut
            if role == "negatives":
                counts = counts if roles[role].counts is None else np.asarray(roles[role].counts)
                batch.negative_counts = torch.from_numpy(counts)
            if role not in self.teacher_roles:
                continue
            if all(f"{column}{VECTORS_SUFFIX}" in table.column_names for column in columns):
                batch.teacher_vectors[role] = _vectors(table, columns, partial(self._place, roles[role], draw))
            elif self.teacher:
                batch.teacher_texts[role], _, _ = _ragged(table, columns, "teacher", self.teacher)
        self._add_grades(batch, tables["query"], roles)
        return batch

    def columns_read(self) -> set[str]:
        """Return the columns that batches are made of, if they are there; others need not be read."""
        texts = self.layout.text_columns
        taught = {column for role in self.teacher_roles for column in self.layout.columns.get(role, ())}
        return {
            *texts,
            *self.layout.grades,
            *(ids_column(column, model) for column in texts for model in ("student", "teacher")),
            *(cut_column(column, model) for column in texts for model in ("student", "teacher")),
            *(f"{column}{VECTORS_SUFFIX}{end}" for column in taught for end in ("", SCALE)),
        }

    def _place(self, role: RoleRows, draw: Draw, row: int) -> str:
        where = f"row {role.rows[row]} of batch {draw.batch}" if self.streamed else f"row {role.rows[row]}"
        return f"The data set {self.name!r}, {where}"

    def _add_grades(self, batch: TextBatch, table: Any, roles: Mapping[str, RoleRows]) -> None:
        if "score" in self.layout.grades:
            batch.score = torch.tensor(table["score"].to_numpy(), dtype=torch.float32)
        if (labels := roles["query"].labels) is not None:
            batch.label = torch.from_numpy(np.asarray(labels))
        elif "label" in self.layout.grades:
            batch.label = _labels(table["label"].to_pylist())
        if "negatives" in roles and (labels := roles["negatives"].labels) is not None:
            batch.negatives_label = torch.from_numpy(np.asarray(labels))


class TrainingRows:
    """Batches of rows that can be read in any order.

    Args:
        rows: With columns ``{column}_student_ids`` (else the reader tokenises), and teacher vectors if there are any.
        reader: Makes batches of them.
        plan: Says which rows a draw is.
        distinct_texts: Whether no two rows of a global batch may have a text in common (negatives aside): other rows
            take the place of those that would.
    """

    def __init__(
        self, rows: "datasets.Dataset", reader: BatchReader, plan: MixturePlan, *, distinct_texts: bool = False
    ) -> None:
        used = [column for column in rows.column_names if column in reader.columns_read()]
        self.rows, self.reader, self.plan = rows.select_columns(used).with_format("arrow"), reader, plan
        self.distinct_texts = distinct_texts

    def batch(self, draw: Draw, part: slice) -> TextBatch:
        """Return a part of a global batch.

        Args:
            draw: Which batch.
            part: This process's rows of it.

        Raises:
            ValueError: If there are not enough rows whose texts differ.
        """
        numbers = self._distinct(draw) if self.distinct_texts else self.plan.rows(draw)
        roles = self.reader.layout.roles(numbers[part], key("tuples", self.plan.seed, draw.dataset, draw.step))
        tables: dict[int, Any] = {}  # roles often share their rows
        for role in roles.values():
            if id(role.rows) not in tables:
                tables[id(role.rows)] = self.rows[role.rows.tolist()]
        return self.reader.read({name: tables[id(role.rows)] for name, role in roles.items()}, roles, draw)

    def _distinct(self, draw: Draw) -> NDArray[np.int64]:
        wanted = self.plan.sets[draw.dataset].batch_size
        chosen: list[int] = []
        seen: set[str] = set()
        for again in range(_SUBSTITUTES):
            numbers = self.plan.rows(draw, again)
            for number, texts in zip(numbers.tolist(), self._texts(numbers), strict=True):
                if seen.isdisjoint(texts):
                    seen.update(texts)
                    chosen.append(number)
                    if len(chosen) == wanted:
                        return np.array(chosen)
        raise ValueError(
            f"The data set {draw.dataset!r} has too many equal texts: of {_SUBSTITUTES * wanted} rows only "
            f"{len(chosen)} have texts of their own, and its batch_size is {wanted}. Lower that, or set "
            "distinct_texts to false."
        )

    def _texts(self, numbers: NDArray[np.int64]) -> Iterator[tuple[str, ...]]:
        """Yield the texts of each draw that must not be another's."""
        layout = self.reader.layout
        role = layout.roles(numbers, 0)["query"]
        names = ("query",) if role.labels is not None else ("query", "document")  # a tuple's others are drawn later
        columns = [column for name in names for column in layout.columns.get(name, ())]
        table = self.rows[role.rows.tolist()]
        return zip(*(table[column].to_pylist() for column in columns), strict=True)


class EvaluationRows(Dataset[EvaluationBatch]):
    """A column of texts as :class:`EvaluationBatch`, tokenised as they are read.

    Args:
        texts: The whole column.
        rows: The positions in it that this process encodes, in their order.
        tokenization: The student's.
        role: Which prompt to use.
        task: Name of the task.
        places: Length of this data set, by default that of ``rows``. There is no text at places beyond them, and a
            batch may be empty: so every rank has as many batches as that with most rows.
    """

    def __init__(
        self,
        texts: Sequence[str],
        rows: Sequence[int] | NDArray[np.int64],
        tokenization: "Tokenization",
        *,
        role: str,
        task: str,
        places: int | None = None,
    ) -> None:
        self.texts, self.rows, self.tokenization = texts, rows, tokenization
        self.role, self.task = role, task
        self.places = len(rows) if places is None else places

    def __len__(self) -> int:
        return self.places

    def __getitem__(self, item: int) -> EvaluationBatch:
        """Return a batch of one text."""
        return self.__getitems__([item])

    def __getitems__(self, items: Sequence[int]) -> EvaluationBatch:
        """Return the batch of these texts."""
        rows = [int(self.rows[item]) for item in items if item < len(self.rows)]
        token_ids = self.tokenization(texts_at(self.texts, rows), self.role)
        places = torch.tensor(rows, dtype=torch.int64)
        return EvaluationBatch(RaggedTexts.from_lists(token_ids), places, self.task, self.role)


def _ragged(
    table: Any, columns: Sequence[str], name: str, tokenizations: Mapping[str, ColumnTokenizationLike]
) -> tuple[RaggedTexts, NDArray[np.int64], int]:
    """Return tokens, how many texts each row has, and how many were cut.

    One column has a text in each row, or a list of them. Of several, a row has a text in some.
    """
    import pyarrow as pa

    first = table[columns[0]]
    lengths = _lengths(first) if is_list(first.type) else None
    cached = all(ids_column(column, name) in table.column_names for column in columns)
    if cached:
        cut = sum(int(table[cut_column(column, name)].to_numpy().sum()) for column in columns)
    if lengths is not None:
        [column] = columns
        if cached:
            return _from_arrow(table[ids_column(column, name)].combine_chunks().flatten()), lengths, cut
        tokenized = tokenizations[column](first.combine_chunks().flatten().to_pylist())
        return RaggedTexts.from_lists(tokenized.ids), lengths, sum(tokenized.cut)
    places = _places(table, columns)
    order = np.argsort(np.concatenate(places))
    counts = np.bincount(np.concatenate(places) // len(columns), minlength=len(table))
    present = [place // len(columns) for place in places]
    if cached:
        lists = [
            table[ids_column(column, name)].combine_chunks().take(pa.array(rows))
            for column, rows in zip(columns, present, strict=True)
        ]
        return _from_arrow(pa.concat_arrays(lists).take(pa.array(order))), counts, cut
    parts = [
        tokenizations[column](table[column].take(pa.array(rows)).to_pylist())
        for column, rows in zip(columns, present, strict=True)
        if len(rows)
    ]
    ids = [tokens for part in parts for tokens in part.ids]
    return RaggedTexts.from_lists([ids[row] for row in order.tolist()]), counts, sum(sum(part.cut) for part in parts)


def _places(table: Any, columns: Sequence[str]) -> list[NDArray[np.int64]]:
    """Return, for each column, where its texts stand among all, row by row: row times columns plus column."""
    valid = [table[column].combine_chunks().is_valid().to_numpy(zero_copy_only=False) for column in columns]
    return [np.flatnonzero(present) * len(columns) + number for number, present in enumerate(valid)]


def _lengths(lists: Any) -> NDArray[np.int64]:
    """Return the length of each list of a column, of any kind of list."""
    import pyarrow.compute as pc

    return np.asarray(pc.list_value_length(lists).to_numpy(), dtype=np.int64)


def _from_arrow(lists: Any) -> RaggedTexts:
    # A copy: Arrow's memory is read-only, and autograd's embedding wants int64
    token_ids = torch.tensor(lists.flatten().to_numpy(), dtype=torch.int64)
    lengths = torch.tensor(lists.value_lengths().to_numpy(zero_copy_only=False), dtype=torch.int64)
    return RaggedTexts(token_ids, lengths)


def _vectors(table: Any, columns: Sequence[str], place: Place) -> Tensor:
    """Return the vector of each text, row by row."""
    if len(columns) == 1 and not table[columns[0]].null_count:
        return vectors(table, f"{columns[0]}{VECTORS_SUFFIX}", place)
    places = _places(table, columns)
    parts = []
    for column, found in zip(columns, places, strict=True):
        rows = found // len(columns)
        if len(rows):
            parts.append(vectors(table.take(rows), f"{column}{VECTORS_SUFFIX}", place_among(place, rows)))
    return torch.cat(parts)[torch.from_numpy(np.concatenate(places)).argsort()]


def _labels(values: Sequence[Any]) -> Tensor:
    """Return a number for each label; the same for equal ones, in every process."""
    numbers = [
        value
        if isinstance(value, int)
        else int.from_bytes(hashlib.blake2b(str(value).encode(), digest_size=8).digest(), "little", signed=True)
        for value in values
    ]
    return torch.tensor(numbers, dtype=torch.int64)
