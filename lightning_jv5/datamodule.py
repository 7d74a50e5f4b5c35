"""EmbeddingDataModule: what is trained on, what is evaluated, and what is encoded for its own sake."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, cast

from lightning.pytorch import LightningDataModule, Trainer
from torch.utils.data import DataLoader

from lightning_jv5.data.batches import EvaluationBatch, TextBatch
from lightning_jv5.data.order import BatchOrder
from lightning_jv5.data.rows import TRAINING_ROLES, EvaluationRows, TrainingRows
from lightning_jv5.data.source import Source
from lightning_jv5.data.teacher_vectors import add_teacher_vectors
from lightning_jv5.data.tokenized import tokenize_columns
from lightning_jv5.module import EmbeddingModule
from lightning_jv5.rebuildable import Rebuildable
from lightning_jv5.tasks import EvaluationTask

if TYPE_CHECKING:
    import datasets


class EmbeddingDataModule(Rebuildable, LightningDataModule):
    """Training pairs, evaluation tasks and a corpus to encode, tokenised as the module's models want them.

    Args:
        train: Rows with ``query`` and ``document`` (or ``text`` alone, which is then the query).
        val: Evaluation tasks of ``fit`` and ``validate``, by name; names become log keys: ``val/<name>/ndcg@10``.
        test: Evaluation tasks of ``test``, by name.
        predict: Rows with ``text`` (or ``document``, or ``query``) that ``predict`` encodes.
        predict_role: Whose prompt ``predict`` uses: ``"query"`` or ``"document"``.
        batch_size: Rows in a *global* training batch, over all processes.
        evaluation_batch_size: Texts in a batch of one process in evaluation and prediction.
        teacher_vectors: ``"online"`` computes them in every step; ``"precompute"`` once, before training, and keeps
            them on disk for the next run with the same rows and teacher. Columns of the rows win over both.
        num_workers: Loader processes; each rank has that many.
        seed: Seed of the order of the rows.

    Raises:
        ValueError: If a size is not positive or a task's name cannot be a log key.
    """

    def __init__(
        self,
        train: Source | None = None,
        *,
        val: dict[str, EvaluationTask] | None = None,
        test: dict[str, EvaluationTask] | None = None,
        predict: Source | None = None,
        predict_role: Literal["query", "document"] = "document",
        batch_size: int = 32,
        evaluation_batch_size: int = 128,
        teacher_vectors: Literal["online", "precompute"] = "online",
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        for name, size in {"batch_size": batch_size, "evaluation_batch_size": evaluation_batch_size}.items():
            if size < 1:
                raise ValueError(f"Got {name} {size}; need at least 1.")
        for task in {**(val or {}), **(test or {})}:
            if not task.replace("_", "").replace("-", "").isalnum():
                raise ValueError(
                    f"Got an evaluation task named {task!r}; the name becomes a log key, "
                    "so use letters, digits, '_' and '-' only."
                )
        self.train, self.predict, self.predict_role = train, predict, predict_role
        self.val, self.test = val or {}, test or {}
        self.batch_size, self.evaluation_batch_size = batch_size, evaluation_batch_size
        self.teacher_vectors = teacher_vectors
        self.num_workers, self.seed = num_workers, seed
        self._training_rows: TrainingRows | None = None

    @property
    def _running(self) -> Trainer:
        if self.trainer is None:
            raise ValueError("Got a data module without a trainer; pass it to one: trainer.fit(module, datamodule).")
        return self.trainer

    @property
    def _module(self) -> EmbeddingModule:
        return cast(EmbeddingModule, self._running.lightning_module)

    @property
    def _origin(self) -> str:
        return type(self.train).__name__

    def tasks(self, stage: str) -> Mapping[str, EvaluationTask]:
        """Return the evaluation tasks of ``fit``, ``validate`` or ``test``."""
        return self.test if stage == "test" else self.val

    # Loading

    def prepare_data(self) -> None:
        """Fill the caches that all processes read from, once per machine."""
        for source in (self.train, self.predict):
            if source is not None:
                source.load()

    def setup(self, stage: str) -> None:
        """Load what the stage needs. The models must be there: they know how texts become tokens."""
        trainer = self._running
        if trainer.world_size > 1 and trainer._accelerator_connector.use_distributed_sampler:
            raise ValueError(
                "Got trainer.use_distributed_sampler=True on several processes: it would repeat rows to even out the "
                "ranks. Set it to False; batches are divided among the processes here."
            )
        if stage == "fit" and self._training_rows is None:
            rows = self._rows_with_teacher_vectors()
            for first in (True, False):  # the first process of each machine fills the cache that its others read
                if (trainer.local_rank == 0) is first:
                    self._training_rows = TrainingRows(self._tokenized(rows))
                trainer.strategy.barrier()
        for task in self.tasks(stage).values():
            task.prepare()

    def _rows_with_teacher_vectors(self) -> "datasets.Dataset":
        if self.train is None:
            raise ValueError("Got no training data; set data.train to a source, such as lightning_jv5.data.LocalFiles.")
        trainer, module = self._running, self._module
        rows = self.train.load()
        if "query" not in rows.column_names and "text" in rows.column_names:
            rows = rows.rename_column("text", "query")
        if "query" not in rows.column_names:
            raise ValueError(
                f"{self._origin} has the columns {', '.join(rows.column_names)}; training needs 'query' and "
                "'document'. Say which is which with the source's columns."
            )
        missing = _without_vectors(rows)
        if module.teacher is None or not missing or self.teacher_vectors == "online":
            return rows
        module.teacher.to(trainer.strategy.root_device)
        return add_teacher_vectors(
            rows,
            module.teacher,
            columns={role: role for role in missing},
            origin=self._origin,
            rank=trainer.global_rank,
            ranks=trainer.world_size,
            barrier=trainer.strategy.barrier,
        )

    def _tokenized(self, rows: "datasets.Dataset") -> "datasets.Dataset":
        """Add the student's token ids, and the teacher's for texts whose vectors are still to be computed."""
        models = {"student": [role for role in TRAINING_ROLES if role in rows.column_names]}
        if self._module.teacher is not None:
            models["teacher"] = _without_vectors(rows)
        for model, roles in models.items():
            tokenization = {model: getattr(self._module, model).tokenization}
            columns = {role: role for role in roles}
            rows = tokenize_columns(rows, tokenizations=tokenization, columns=columns, origin=self._origin)
        return rows

    # Loaders

    def train_dataloader(self) -> DataLoader[TextBatch]:
        """Return the training batches that come after those that the module has been trained on."""
        rows = self._training_rows
        assert rows is not None
        order = BatchOrder(
            len(rows),
            self.batch_size,
            seed=self.seed,
            rank=self._running.global_rank,
            ranks=self._running.world_size,
            position=lambda: self._module.trained_batches,
        )
        return self._loader(rows, loader=_ResumableLoader, batch_sampler=order)

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
        return self._evaluation_loader(rows[column], sharded=True, role=self.predict_role, task="predict")

    def _evaluation_loaders(self, stage: str) -> list[DataLoader[EvaluationBatch]]:
        return [
            self._evaluation_loader(part.texts, sharded=part.sharded, role=part.role, task=name)
            for name, task in self.tasks(stage).items()
            for part in task.parts()
        ]

    def _evaluation_loader(self, texts: Any, *, sharded: bool, role: str, task: str) -> DataLoader[EvaluationBatch]:
        """Return the loader of all texts, or of each ``ranks``-th; on every rank with the same number of batches."""
        rank, ranks = (self._running.global_rank, self._running.world_size) if sharded else (0, 1)
        rows, places = range(rank, len(texts), ranks), -(-len(texts) // ranks)
        tokenization = self._module.student.tokenization
        data = EvaluationRows(texts, rows, tokenization, role=role, task=task, places=places)
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


def _without_vectors(rows: "datasets.Dataset") -> list[str]:
    """Return the roles whose teacher vectors are not among the columns."""
    columns = rows.column_names
    return [role for role in TRAINING_ROLES if role in columns and f"{role}_teacher" not in columns]


class _ResumableLoader(DataLoader[TextBatch]):
    """Tells Lightning that a resumed run goes on where it stopped. There is no state: the order asks the module."""

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        pass


def _as_is(batch: Any) -> Any:
    return batch
