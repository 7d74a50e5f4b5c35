"""EmbeddingDataModule: what is trained on, what is evaluated, and what is encoded for its own sake."""

from collections.abc import Mapping
from typing import Any, Literal, cast

import numpy as np
from lightning.pytorch import LightningDataModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from lightning_jv5.data.batches import ONLY_SET, EvaluationBatch, TextBatch
from lightning_jv5.data.longest_first import longest_first
from lightning_jv5.data.mixture import MixturePlan
from lightning_jv5.data.resuming import check_same_data
from lightning_jv5.data.rows import EvaluationRows
from lightning_jv5.data.source import Source
from lightning_jv5.data.training_batches import Steps, TrainingBatches
from lightning_jv5.data.training_set import TrainingSet
from lightning_jv5.losses.batch import checked_roles
from lightning_jv5.module import EmbeddingModule
from lightning_jv5.open_sets import OpenedSet, SetOpener, plan_mixture
from lightning_jv5.rebuildable import Rebuildable
from lightning_jv5.tasks import EvaluationTask


class EmbeddingDataModule(Rebuildable, LightningDataModule):
    """Training sets, evaluation tasks and a corpus to encode, tokenised as the module's models want them.

    Args:
        train: Data sets by name, of which every step draws one; or a single source. Rows are pairs (``query``,
            ``document`` and any negatives), scored pairs (``text1``, ``text2``, ``score``) or texts (``text``, with a
            ``label`` or without).
        val: Evaluation tasks of ``fit`` and ``validate``, by name; names become log keys: ``val/<name>/ndcg@10``.
        test: Evaluation tasks of ``test``, by name.
        predict: Rows with ``text`` (or ``document``, or ``query``) that ``predict`` encodes.
        predict_role: Whose prompt ``predict`` uses: ``"query"`` or ``"document"``.
        batch_size: Rows in a *global* training batch, over all processes, of sets that do not say.
        size_exponent: Sets that give no weight are drawn in proportion to their number of batches to this power: with 1
            every row of every set is trained on equally often, with 0 every set is.
        distinct_texts: Whether no two rows of a global batch may have a text in common (negatives aside).
        steps_per_epoch: Length of an epoch; by default the batches of all sets together. Needed with streams where
            ``trainer.max_steps`` is not given.
        evaluation_batch_size: Texts in a batch of one process in evaluation, where they are of similar length and the
            longest come first, and in prediction.
        teacher_vectors: ``"online"`` computes them in every step; ``"precompute"`` once, before training, and keeps
            them on disk for the next run with the same rows and teacher. Columns of the rows win over both.
        teacher_roles: The roles whose texts the teacher embeds: ``"query"``, ``"document"``, ``"negatives"``.
        num_workers: Loader processes; each rank has that many.
        seed: Seed of the order of sets and rows.

    Raises:
        ValueError: If a size is not positive, a name cannot be a log key, or a role is unknown.
    """

    def __init__(
        self,
        train: Source | dict[str, TrainingSet] | None = None,
        *,
        val: dict[str, EvaluationTask] | None = None,
        test: dict[str, EvaluationTask] | None = None,
        predict: Source | None = None,
        predict_role: Literal["query", "document"] = "document",
        batch_size: int = 32,
        size_exponent: float = 1.0,
        distinct_texts: bool = False,
        steps_per_epoch: int | None = None,
        evaluation_batch_size: int = 128,
        teacher_vectors: Literal["online", "precompute"] = "online",
        teacher_roles: list[str] = ["query", "document"],  # noqa: B006  (never changed)
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        sizes = {"batch_size": batch_size, "evaluation_batch_size": evaluation_batch_size}
        sizes |= {} if steps_per_epoch is None else {"steps_per_epoch": steps_per_epoch}
        for name, size in sizes.items():
            if size < 1:
                raise ValueError(f"Got {name} {size}; need at least 1.")
        self.train = {ONLY_SET: TrainingSet(train)} if isinstance(train, Source) else train or {}
        if not isinstance(train, Source) and ONLY_SET in self.train:
            raise ValueError(f"Got a data set named {ONLY_SET!r}, as a single source is called; choose another name.")
        names = {"an evaluation task": [*(val or {}), *(test or {})], "a data set": [*self.train]}
        for what, given in names.items():
            for name in given:
                if not name.replace("_", "").replace("-", "").isalnum():
                    raise ValueError(
                        f"Got {what} named {name!r}; the name becomes a log key, "
                        "so use letters, digits, '_' and '-' only."
                    )
        checked_roles(teacher_roles)
        self.predict, self.predict_role = predict, predict_role
        self.val, self.test = val or {}, test or {}
        self.batch_size, self.evaluation_batch_size = batch_size, evaluation_batch_size
        self.size_exponent, self.distinct_texts = size_exponent, distinct_texts
        self.steps_per_epoch = steps_per_epoch
        self.teacher_vectors, self.teacher_roles = teacher_vectors, teacher_roles
        self.num_workers, self.seed = num_workers, seed
        self._sets: dict[str, OpenedSet] | None = None
        self._plan: MixturePlan | None = None
        self._marks: dict[str, list[tuple[int, dict[str, Any]]]] = {}  # of streams: the last ones, by step

    @property
    def _running(self) -> Trainer:
        if self.trainer is None:
            raise ValueError("Got a data module without a trainer; pass it to one: trainer.fit(module, datamodule).")
        return self.trainer

    @property
    def _module(self) -> EmbeddingModule:
        return cast(EmbeddingModule, self._running.lightning_module)

    def tasks(self, stage: str) -> Mapping[str, EvaluationTask]:
        """Return the evaluation tasks of ``fit``, ``validate`` or ``test``."""
        return self.test if stage == "test" else self.val

    # Loading

    def prepare_data(self) -> None:
        """Fill the caches that all processes read from, once per machine."""
        for training_set in self.train.values():
            if not training_set.streaming:
                training_set.source.load()
        if self.predict is not None:
            self.predict.load()
        function = None if self.trainer is None else self.trainer.state.fn
        if function in (TrainerFn.FITTING, TrainerFn.VALIDATING, TrainerFn.TESTING):
            for task in self.tasks("test" if function == TrainerFn.TESTING else "validate").values():
                task.prepare()

    def setup(self, stage: str) -> None:
        """Load what the stage needs. The models must be there: they know how texts become tokens."""
        trainer = self._running
        if trainer.world_size > 1 and trainer._accelerator_connector.use_distributed_sampler:
            raise ValueError(
                "Got trainer.use_distributed_sampler=True on several processes: it would repeat rows to even out the "
                "ranks. Set it to False; batches are divided among the processes here."
            )
        if stage == "fit":  # anew each time: another run may have other models
            if overfit := getattr(trainer, "overfit_batches", 0):
                raise ValueError(
                    f"Got trainer.overfit_batches={overfit}, which would replace the order of the rows. Give the "
                    "source a few rows instead: rows=..."
                )
            self._marks = {}
            self._sets = self._opened(trainer)
            self._plan = plan_mixture(self._sets, self.train, size_exponent=self.size_exponent, seed=self.seed)
        if stage == "validate" and not self.val:
            raise ValueError("Got nothing to validate on; set data.val to evaluation tasks by name.")
        for task in self.tasks(stage).values():
            task.prepare()

    def _opened(self, trainer: Trainer) -> dict[str, OpenedSet]:
        if not self.train:
            raise ValueError(
                "Got no training data; set data.train to a source, such as lightning_jv5.data.LocalFiles, or to data "
                "sets by name."
            )
        opener = SetOpener(trainer, self._module, self.batch_size, self.teacher_vectors, self.teacher_roles)
        found = {name: opener.open(name, training_set) for name, training_set in self.train.items()}
        opened = {name: one for name, one in found.items() if one is not None}
        if not opened:
            raise ValueError(f"All data sets are left out ({', '.join(found)}); at least one must have usable rows.")
        return opened

    # Resuming: the order of the rows needs the number of trained batches only, streams need their place

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Remember where streams are once their batches are trained on, not when they are prefetched."""
        if isinstance(batch, TextBatch) and batch.stream is not None:
            marks = self._marks.setdefault(batch.dataset, [])
            marks.append((batch.step, batch.stream))
            del marks[:-2]  # an exception in a step means that its batch was not trained on
        return batch

    def training_state(self, trained_batches: int) -> dict[str, Any]:
        """Return what a checkpoint keeps: what the data were, and the places of streams; plain data."""
        streams = {}
        for name, marks in self._marks.items():
            trained = [mark for step, mark in marks if step < trained_batches]
            if trained:
                streams[name] = trained[-1]
        return {"plan": self._description() if self._plan else None, "streams": streams}

    def resume_training(self, state: dict[str, Any]) -> None:
        """Take up the streams where they were.

        Raises:
            ValueError: If the state is of other data; names the difference.
        """
        if state["plan"] is None:
            raise ValueError(
                "The checkpoint was written without having trained, so it says nothing of the data. Start a new run "
                "from its weights: EmbeddingModule.load_from_checkpoint."
            )
        check_same_data(state["plan"], self._description())
        self._marks = {name: [(-1, mark)] for name, mark in state["streams"].items()}

    def _description(self) -> dict[str, Any]:
        plan, sets = self._plan, self._sets
        assert plan is not None
        assert sets is not None
        return {
            "seed": self.seed,
            "distinct_texts": self.distinct_texts,
            "teacher_roles": self.teacher_roles,
            "sets": {
                name: {
                    "rows": planned.rows,
                    "batch_size": planned.batch_size,
                    "weight": planned.weight,
                    **sets[name].description,
                }
                for name, planned in plan.sets.items()
            },
        }

    # Loaders

    def train_dataloader(self) -> DataLoader[TextBatch]:
        """Return the training batches that come after those that the module has been trained on."""
        plan, sets = self._plan, self._sets
        assert plan is not None
        assert sets is not None
        batches = {
            name: sets[name].batches(
                plan,
                distinct_texts=self.distinct_texts,
                mark=self._marks[name][-1][1] if name in self._marks else None,
            )
            for name in plan.sets
        }
        data = TrainingBatches(plan, batches, rank=self._running.global_rank, ranks=self._running.world_size)
        steps = Steps(self._epoch_length(plan), position=lambda: self._module.trained_batches)
        return self._loader(data, loader=_ResumableLoader, sampler=steps, batch_size=None)

    def _epoch_length(self, plan: MixturePlan) -> int:
        if self.steps_per_epoch is not None:
            return self.steps_per_epoch
        if (batches := plan.batches()) is not None:
            return batches
        streams = ", ".join(repr(name) for name, planned in plan.sets.items() if planned.rows is None)
        max_steps: int = self._running.max_steps
        if max_steps < 1:
            raise ValueError(
                f"Got streams ({streams}), which have no length, and neither trainer.max_steps nor "
                "data.steps_per_epoch. Set one of them."
            )
        return max_steps * self._running.accumulate_grad_batches

    def val_dataloader(self) -> list[DataLoader[EvaluationBatch]]:
        """Return one loader for each part of each task: queries, then documents."""
        return self._evaluation_loaders("validate")

    def test_dataloader(self) -> list[DataLoader[EvaluationBatch]]:
        """Return one loader for each part of each task of ``test``."""
        if not self.test:
            raise ValueError("Got nothing to test on; set data.test to evaluation tasks by name, as data.val.")
        return self._evaluation_loaders("test")

    def predict_dataloader(self) -> DataLoader[EvaluationBatch]:
        """Return the corpus that ``predict`` encodes; ranks divide it."""
        if self.predict is None:
            raise ValueError("Got nothing to encode; set data.predict to a source with a column 'text'.")
        rows = self.predict.load()
        column = next(
            (name for name in ("text", self.predict_role, "document", "query") if name in rows.column_names), None
        )
        if column is None:
            raise ValueError(
                f"{type(self.predict).__name__} has the columns {', '.join(rows.column_names)}; predict needs 'text'. "
                "Say which is which with the source's columns."
            )
        texts = rows[column]
        # In their order, as what predict returns: evaluation alone may come longest first
        return self._evaluation_loader(texts, np.arange(len(texts)), role=self.predict_role, task="predict")

    def _evaluation_loaders(self, stage: str) -> list[DataLoader[EvaluationBatch]]:
        return [
            self._evaluation_loader(
                part.texts, longest_first(part.texts), sharded=part.sharded, role=part.role, task=name
            )
            for name, task in self.tasks(stage).items()
            for part in task.parts()
        ]

    def _evaluation_loader(
        self, texts: Any, order: NDArray[np.int64], *, role: str, task: str, sharded: bool = True
    ) -> DataLoader[EvaluationBatch]:
        """Return the loader of all texts, or of each ``ranks``-th; on every rank with the same number of batches."""
        rank, ranks = (self._running.global_rank, self._running.world_size) if sharded else (0, 1)
        tokenization = self._module.student.tokenization
        places = -(-len(order) // ranks)
        data = EvaluationRows(texts, order[rank::ranks], tokenization, role=role, task=task, places=places)
        return self._loader(data, batch_size=self.evaluation_batch_size)

    def _loader(self, data: Any, loader: type[DataLoader[Any]] = DataLoader, **batches: Any) -> DataLoader[Any]:
        return loader(
            data,
            collate_fn=_as_is,  # the rows come as a batch already
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=self._running.strategy.root_device.type == "cuda",
            **batches,
        )


class _ResumableLoader(DataLoader[TextBatch]):
    """Tells Lightning that a resumed run goes on where it stopped. There is no state: the order asks the module."""

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        pass


def _as_is(batch: Any) -> Any:
    return batch
