"""What validate and test found, for people and for programs: a table, scores.json, and TREC run files."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer

from lightning_jv5 import __version__
from lightning_jv5.callbacks.report import run_folder
from lightning_jv5.callbacks.view_evaluation import ViewEvaluation
from lightning_jv5.data.cache import atomic_file, write_json
from lightning_jv5.metrics.retrieval import StreamingRetrieval
from lightning_jv5.models import Embedder
from lightning_jv5.models.fingerprint import fingerprint_of
from lightning_jv5.models.sharding import is_sharded
from lightning_jv5.rebuildable import constructor_arguments
from lightning_jv5.tasks import Evaluation, EvaluationTask, RetrievalTask, Score, View, scores_table, share_of_full
from lightning_jv5.tasks.trainer import shows_progress

SCORES = "scores.json"


class EvaluationReport(ViewEvaluation):
    """Print the scores of ``validate`` and ``test`` as a table, and write them to ``scores.json`` in the run's folder.

    Shown are whole embeddings and the views of the other callbacks, such as
    :class:`~lightning_jv5.callbacks.MatryoshkaEvaluation`. The file has every measure of every view, what the model is
    (path, adapter, fingerprint of its weights), the version of this package, how many texts there were, and all that
    was logged. The command line adds this callback where a config has none; ``fit`` reports nothing.

    Args:
        json_file: The file to write instead of ``scores.json`` in the run's folder.
        run_files: Whether to write what ranks first for each query, in TREC's format, to ``<task>.trec`` in the run's
            folder: for retrieval tasks, from whole embeddings, as many documents as the largest cut-off of a measure.

    Raises:
        ValueError: At setup, if ids of a task cannot stand in a run file, as they are empty or have blanks in them.

    Example::

        trainer = Trainer(callbacks=[MatryoshkaEvaluation([64]), EvaluationReport(run_files=True)], logger=False)
        trainer.validate(EmbeddingModule(Embedder("models/small")), datamodule=EmbeddingDataModule(val=tasks))
    """

    def __init__(self, json_file: str | None = None, *, run_files: bool = False) -> None:
        self.json_file, self.run_files = json_file, run_files
        self._others: list[ViewEvaluation] = []
        self._reports = False
        self._scores: list[Score] = []
        self._tasks: Mapping[str, EvaluationTask] = {}

    def views(self) -> list[View]:
        """Return the whole embedding and the views of the other callbacks."""
        return list(dict.fromkeys([View(), *(view for other in self._others for view in other.views())]))

    def takes_part(self, trainer: Trainer) -> bool:
        """Return whether this is ``validate`` or ``test`` on evaluation tasks."""
        return self._reports

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Look for the other callbacks, and refuse ids that a run file cannot have, before anything is encoded."""
        datamodule: Any = getattr(trainer, "datamodule", None)
        self._tasks = datamodule.tasks(stage) if hasattr(datamodule, "tasks") else {}
        self._scores, self._reports = [], stage in ("validate", "test") and bool(self._tasks)
        if not self._reports:
            return
        callbacks: Any = trainer
        self._others = [
            one
            for one in callbacks.callbacks
            if isinstance(one, ViewEvaluation) and not isinstance(one, EvaluationReport)
        ]
        for name, task in self._tasks.items() if self.run_files else ():
            if isinstance(task, RetrievalTask):
                check_run_ids(name, task)

    def finish(self, trainer: Trainer, pl_module: LightningModule, prefix: str, evaluation: Evaluation) -> None:
        """Keep the scores, and write the run files while the rankings are there."""
        self._scores = evaluation.compute(self.views(), progress=shows_progress(trainer))
        for name, task in evaluation.tasks.items() if self.run_files else ():
            metric = evaluation.metric(name, View())
            if isinstance(task, RetrievalTask) and isinstance(metric, StreamingRetrieval):
                write_run_file(trainer, run_folder(trainer) / f"{name}.trec", task, metric)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write ``scores.json``."""
        self._write(trainer, pl_module)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write ``scores.json``."""
        self._write(trainer, pl_module)

    def _write(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self._scores or not trainer.is_global_zero:
            return
        shares = [_number(share_of_full(score, self._scores)) for score in self._scores]
        rows = [score.to_plain() | {"share_of_full": share} for score, share in zip(self._scores, shares, strict=True)]
        tasks = {
            name: {"main_metric": task.main_metric, "texts": {part.role: len(part.texts) for part in task.parts()}}
            for name, task in self._tasks.items()
        }
        report = {
            "lightning_jv5": __version__,
            "stage": "test" if trainer.testing else "validate",
            "model": describe_model(pl_module) | {"checkpoint": _checkpoint(trainer)},
            "tasks": tasks,
            "scores": rows,
            "logged": {name: _number(float(value)) for name, value in sorted(trainer.callback_metrics.items())},
        }
        write_json(self._file(trainer), report)

    def _file(self, trainer: Trainer) -> Path:
        return run_folder(trainer) / SCORES if self.json_file is None else Path(self.json_file)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Print the table, now that the progress bar is closed."""
        reports, self._reports = self._reports, False
        if not reports or not trainer.is_global_zero:
            return
        if not self._scores:
            print("\nNothing was scored: fast_dev_run or a limit on batches let the tasks see a part of their texts.")
            return
        print(f"\n{_model_line(pl_module)}\n\n{scores_table(self._scores)}\n", flush=True)
        prefix = "test" if stage == "test" else "val"
        own = {  # what the user's own code has logged beside the tasks
            name: float(value)
            for name, value in sorted(trainer.callback_metrics.items())
            if not any(name.startswith(f"{prefix}/{task}/") for task in self._tasks)
        }
        for name, value in own.items():
            print(f"{name}  {value:.4f}")
        print(f"Every measure of every view: {self._file(trainer)}", flush=True)


def describe_model(pl_module: LightningModule) -> dict[str, Any]:
    """Return what tells the model of a module: path, adapter, width, fingerprints; plain data.

    The path is as it was given, and None for weights that no folder has. A fingerprint is None where ranks hold a part
    of the weights each; everything is in other modules than ours.

    >>> describe_model(LightningModule())
    {'path': None, 'task': None, 'dim': None, 'fingerprint': None, 'adapter_fingerprint': None}
    """
    student: Any = getattr(pl_module, "student", None)
    if not isinstance(student, Embedder):
        return {"path": None, "task": None, "dim": None, "fingerprint": None, "adapter_fingerprint": None}
    weights = None if is_sharded(student.backbone) else student.state_dict()
    of_adapter = weights is not None and student.task is not None
    return {
        "path": _path_of(student),
        "task": student.task,
        "dim": student.dim,
        "fingerprint": None if weights is None else fingerprint_of(weights),
        "adapter_fingerprint": fingerprint_of(weights or {}, adapter=student.task) if of_adapter else None,
    }


def check_run_ids(name: str, task: RetrievalTask) -> None:
    """Refuse ids that a run file cannot have: blanks separate its columns.

    Args:
        name: Name of the task.
        task: The task, prepared.

    Raises:
        ValueError: If there is such an id.

    >>> from lightning_jv5.tasks import ReadyRetrieval, RetrievalData
    >>> task = ReadyRetrieval(RetrievalData(["q"], ["capital of France"], ["no 1"], ["Paris"], {"q": {"no 1": 1}}))
    >>> task.prepare()
    >>> check_run_ids("capitals", task)
    Traceback (most recent call last):
        ...
    ValueError: Got run_files for the task 'capitals', which has the document id 'no 1'; ... set run_files to false.
    """
    for what, ids in (("query", task.data.query_ids), ("document", task.data.document_ids)):
        bad = next((one for one in ids if one.split() != [one]), None)
        if bad is not None:
            raise ValueError(
                f"Got run_files for the task {name!r}, which has the {what} id {bad!r}; need ids of at least one "
                "character and without blanks, which separate the columns of a run file. Rename the ids, or set "
                "run_files to false."
            )


def write_run_file(trainer: Trainer, path: Path, task: RetrievalTask, metric: StreamingRetrieval) -> None:
    """Write ``query Q0 document rank score tag`` for each document that ranks first for a query.

    Scores have the nine digits that tell float32 numbers apart: trec_eval, which orders by score and breaks ties by id,
    both descending, finds the very order that was scored. Rank 0 writes; all ranks call it, as the metric merges them.

    Args:
        trainer: Says which rank this is.
        path: The file, which appears whole or not at all.
        task: Whose ids to write.
        metric: A metric of the task that has seen all texts.
    """
    scores, rows = metric.rankings()
    if not trainer.is_global_zero:
        return
    query_ids, document_ids = task.data.query_ids, task.data.document_ids
    with atomic_file(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for query, of_query, documents in zip(query_ids, scores, rows, strict=True):
            ranked = zip(documents.tolist(), of_query.tolist(), strict=True)
            for rank, (row, score) in enumerate(ranked, start=1):
                if row >= 0:
                    file.write(f"{query} Q0 {document_ids[row]} {rank} {score:.9g} lightning_jv5\n")


def _model_line(pl_module: LightningModule) -> str:
    student: Any = getattr(pl_module, "student", None)
    if not isinstance(student, Embedder):
        return type(pl_module).__name__
    path = _path_of(student) or "A model that no folder has"
    adapter = "" if student.task is None else f", adapter {student.task}"
    return f"{path}{adapter}, {student.dim} coordinates"


def _path_of(student: Embedder) -> str | None:
    path: str | None = constructor_arguments(student).get("path")
    return path


def _checkpoint(trainer: Trainer) -> str | None:
    return None if trainer.ckpt_path is None else str(trainer.ckpt_path)


def _number(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
