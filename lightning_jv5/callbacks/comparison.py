"""What a run was for, in one table: the teacher, the student before it and the student after it."""

import time
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any, Literal

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor

from lightning_jv5.callbacks.curves import Curve, draw_curves
from lightning_jv5.callbacks.report import log_figure, run_folder
from lightning_jv5.callbacks.view_evaluation import check_dims, sorted_dims
from lightning_jv5.data.cache import write_json
from lightning_jv5.rebuildable import Rebuildable, constructor_arguments
from lightning_jv5.tasks import EvaluationTask, View, evaluate
from lightning_jv5.tasks.trainer import evaluation_tasks

ModelName = Literal["teacher", "student_before", "student_after"]
Precision = Literal["float", "binary"]

_TITLES = {"teacher": "Teacher", "student_before": "Student before", "student_after": "Student after"}
_COLORS = {"teacher": 7, "student_before": 1, "student_after": 0}
_MOST_ITEMS = 16  # longer lists are data, not settings
_MOST_CHARACTERS = 500


class TeacherStudentTable(Callback):
    """Compare teacher, student before and student after training, at each dim and precision.

    At the end of ``fit`` the main measure of each evaluation task is printed as a table, written to ``summary.json`` in
    the run's folder, drawn as the figure ``summary``, and given to TensorBoard with the hyperparameters as
    ``hp/<task>/<measure>``. A resumed run keeps what it measured at its start. The teacher is left out where the
    module has none; dims that it lacks are left out and its full dim is added. Nothing is done under ``fast_dev_run``.

    Args:
        dims: Coordinates to keep.
        precisions: ``"float"``, ``"binary"`` or both.
        models: Which of ``"teacher"``, ``"student_before"`` and ``"student_after"``.
        task: Evaluation task to compare on; by default all of ``data.val``.

    Raises:
        ValueError: If an argument is wrong; at setup, if the student's embeddings are smaller than a dim, or there is
            no such task.

    >>> TeacherStudentTable([384, 64]).dims
    [64, 384]
    """

    def __init__(
        self,
        dims: list[int],
        precisions: tuple[Precision, ...] = ("float", "binary"),
        models: tuple[ModelName, ...] = ("teacher", "student_before", "student_after"),
        task: str | None = None,
    ) -> None:
        self.dims = sorted_dims(dims, type(self).__name__)
        for name, values, known in (
            ("precisions", precisions, ("float", "binary")),
            ("models", models, tuple(_TITLES)),
        ):
            if not values or len(set(values)) != len(values) or not set(values) <= set(known):
                raise ValueError(
                    f"Got {name} {list(values)}; need one or more of {list(known)}, each once. Correct the list."
                )
        self.precisions: Sequence[str] = tuple(precisions)
        self.models: Sequence[str] = tuple(models)
        self.task = task
        self._rows: list[dict[str, Any]] = []
        self._table = ""
        self._started = time.perf_counter()  # not in setup, which comes after the data has been prepared
        self._seconds_before = 0.0

    @property
    def state_key(self) -> str:
        """Under which checkpoints keep the state: one for each task, so that several tables can be made."""
        return self._generate_state_key(task=self.task)

    def state_dict(self) -> dict[str, Any]:
        """Return what was measured at the start, and the time until now."""
        return {"rows": [dict(row) for row in self._rows], "seconds": self._seconds()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what the run that is resumed measured at its start."""
        self._rows = [dict(row) for row in state_dict["rows"] if row["model"] != "student_after"]
        self._seconds_before = float(state_dict["seconds"])

    def _seconds(self) -> float:
        return self._seconds_before + time.perf_counter() - self._started

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse what cannot be compared before time is spent on it."""
        if stage != "fit" or _is_trial(trainer):
            return
        self._seconds_before = 0.0
        self._rows, self._table = [], ""
        check_dims(self.dims, pl_module, type(self).__name__)
        known = list(evaluation_tasks(trainer))
        if not known or (self.task is not None and self.task not in known):
            raise ValueError(
                f"TeacherStudentTable got the task {self.task or '(all)'!r} and evaluation tasks {known}; need at "
                "least one task, and the name of one of them. Set data.val to tasks by name, and task to one of them."
            )

    def _tasks(self, trainer: Trainer) -> dict[str, EvaluationTask]:
        return {name: task for name, task in evaluation_tasks(trainer).items() if self.task in (None, name)}

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure the teacher and, unless the run is resumed, the student."""
        if _is_trial(trainer):
            return
        teacher: Any = getattr(pl_module, "teacher", None)
        measured = {row["model"] for row in self._rows}
        if "teacher" in self.models and "teacher" not in measured and teacher is not None:
            teacher.to(pl_module.device)
            dims = sorted({dim for dim in self.dims if dim <= teacher.dim} | {teacher.dim})
            self._measure(trainer, pl_module, "teacher", teacher.encode, dims)
        if "student_before" in self.models and "student_before" not in measured and trainer.ckpt_path is None:
            self._measure_student(trainer, pl_module, "student_before")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure the student again, and report."""
        if _is_trial(trainer):
            return
        if "student_after" in self.models:
            self._measure_student(trainer, pl_module, "student_after")
        tasks = self._tasks(trainer)
        rows = [row for row in self._rows if row["task"] in tasks and row["model"] in self.models]
        metric = ", ".join(dict.fromkeys(task.main_metric for task in tasks.values()))
        if trainer.is_global_zero:
            summary = {"metric": metric, "rows": rows, "seconds": self._seconds()}
            write_json(run_folder(trainer) / "summary.json", summary)
            self._draw(trainer, rows, metric)
            self._log_hyperparameters(trainer, pl_module, tasks)
        self._table = comparison_table(rows, {name: task.main_metric for name, task in tasks.items()})

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the table, now that the progress bar is closed."""
        if trainer.is_global_zero and self._table:
            print(f"\n{self._table}\n", flush=True)
        self._started = time.perf_counter()  # of the next fit, if any

    def _measure_student(self, trainer: Trainer, pl_module: LightningModule, model: str) -> None:
        student: Any = pl_module.student

        def encode(texts: Sequence[str], role: str) -> Tensor:
            with trainer.precision_plugin.forward_context():  # as validation encodes
                embeddings: Tensor = student.encode(texts, role)
            return embeddings

        self._measure(trainer, pl_module, model, encode, self.dims)

    def _measure(
        self, trainer: Trainer, pl_module: LightningModule, model: str, encode: Any, dims: Sequence[int]
    ) -> None:
        tasks = self._tasks(trainer)
        scores = evaluate(
            encode,
            tasks,
            [View(dim, precision) for dim in dims for precision in self.precisions],  # type: ignore[arg-type]
            progress=trainer.progress_bar_callback is not None,
            description=_TITLES[model],
            device=pl_module.device,
        )
        self._rows += [
            {
                "model": model,
                "dim": score.view.dim,
                "precision": score.view.precision,
                "value": score.values[tasks[score.task].main_metric],
                "task": score.task,
            }
            for score in scores
        ]

    def _draw(self, trainer: Trainer, rows: Sequence[dict[str, Any]], metric: str) -> None:
        panels: dict[str, list[Curve]] = {}
        for task in dict.fromkeys(row["task"] for row in rows):
            panels[task] = []
            for model, title in _TITLES.items():
                for precision in self.precisions:
                    found = [row for row in rows if (row["task"], row["model"]) == (task, model)]
                    points = sorted((row["dim"], row["value"]) for row in found if row["precision"] == precision)
                    if points:
                        dims, values = zip(*points, strict=True)
                        label = f"{title.lower()}, {precision}"
                        panels[task].append(Curve(label, dims, values, _COLORS[model], dashed=precision == "binary"))
        if panels:
            log_figure(
                trainer,
                "summary",
                draw_curves(panels, title=f"Teacher and student, step {trainer.global_step}", metric=metric),
                {"step": trainer.global_step, "metric": metric, "rows": list(rows)},
            )

    def _log_hyperparameters(
        self, trainer: Trainer, pl_module: LightningModule, tasks: Mapping[str, EvaluationTask]
    ) -> None:
        best = {
            row["task"]: row["value"]  # the last is that of the largest dim, float before binary
            for row in sorted(self._rows, key=lambda row: (row["precision"] == "float", row["dim"]))
            if row["model"] == "student_after"
        }
        metrics = {f"hp/{name}/{tasks[name].main_metric}": value for name, value in best.items() if name in tasks}
        loggers = [logger for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]
        if metrics and loggers:
            settings = hyperparameters(trainer, pl_module)
            for logger in loggers:
                logger.log_hyperparams(settings, metrics=metrics, step=trainer.global_step)


def comparison_table(rows: Sequence[Mapping[str, Any]], metric: str | Mapping[str, str]) -> str:
    """Return rows of ``summary.json`` as an aligned text table, one block for each task.

    Args:
        rows: The rows.
        metric: The measure of every task, or of each by its name.

    >>> rows = [
    ...     {"model": model, "dim": 64, "precision": "float", "value": value, "task": "small"}
    ...     for model, value in {"teacher": 0.5, "student_before": 0.1, "student_after": 0.4}.items()
    ... ]
    >>> print(comparison_table(rows, "ndcg@10"))
    small: ndcg@10
    dim  precision  teacher  before   after     gain  of teacher
     64  float       0.5000  0.1000  0.4000  +0.3000       80.0%
    """
    blocks = []
    for task in dict.fromkeys(row["task"] for row in rows):
        values = {(row["dim"], row["precision"], row["model"]): row["value"] for row in rows if row["task"] == task}
        measure = metric if isinstance(metric, str) else metric[task]
        lines = [f"{task}: {measure}", "dim  precision  teacher  before   after     gain  of teacher"]
        width = max(3, *(len(str(dim)) for dim, _, _ in values))
        lines[1] = lines[1].rjust(len(lines[1]) + width - 3)
        for precision in sorted({precision for _, precision, _ in values}, reverse=True):  # float, then binary
            for dim in sorted({dim for dim, of, _ in values if of == precision}, reverse=True):
                teacher, before, after = (values.get((dim, precision, model)) for model in _TITLES)
                kept = f"{after / teacher:.1%}" if teacher and after is not None else "-"
                cells = " ".join(("-" if value is None else f"{value:.4f}").rjust(7) for value in (before, after))
                first = ("-" if teacher is None else f"{teacher:.4f}").rjust(7)
                gain = "-" if before is None or after is None else f"{after - before:+.4f}"
                lines.append(f"{dim:>{width}}  {precision:<9}  {first} {cells} {gain:>8} {kept:>11}")
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def hyperparameters(trainer: Trainer, pl_module: LightningModule) -> dict[str, str | int | float | bool]:
    """Return the settings of a run as a flat dictionary, as far as they are plain: ``model.student.path`` and such.

    Example::

        settings = hyperparameters(trainer, module)
        settings["data.batch_size"], settings["model.optimizer.lr"]
    """
    settings: dict[str, str | int | float | bool] = {}
    _flatten("model", pl_module, settings)
    _flatten("data", getattr(trainer, "datamodule", None), settings)
    for optimizer in trainer.optimizers[:1]:
        settings["model.optimizer"] = type(optimizer).__name__
        _flatten("model.optimizer", dict(optimizer.defaults), settings)
    return settings


def _flatten(name: str, value: Any, settings: dict[str, str | int | float | bool]) -> None:
    """Add what is plain in ``value``; what is data rather than a setting, or cannot be written down, is left out."""
    if isinstance(value, Rebuildable):
        settings[name] = type(value).__name__
        value = constructor_arguments(value)
    if isinstance(value, PurePath):
        value = str(value)
    if isinstance(value, Mapping) and len(value) <= _MOST_ITEMS:
        for key, item in value.items():
            _flatten(f"{name}.{key}", item, settings)
    elif isinstance(value, bool | int | float) or (isinstance(value, str) and len(value) <= _MOST_CHARACTERS):
        settings[name] = value
    elif (
        isinstance(value, list | tuple)
        and len(value) <= _MOST_ITEMS
        and all(isinstance(item, bool | int | float | str) for item in value)
    ):
        settings[name] = str(list(value))[:_MOST_CHARACTERS]


def _is_trial(trainer: Trainer) -> bool:
    return bool(getattr(trainer, "fast_dev_run", False))
