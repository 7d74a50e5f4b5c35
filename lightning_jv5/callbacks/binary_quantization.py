"""What few bits per coordinate achieve: sign bits, searched in several ways, and bytes."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

from lightning.pytorch import LightningModule, Trainer

from lightning_jv5.callbacks.compression_grid import GridCell, compression_grid, draw_grid, grid_data, grid_table
from lightning_jv5.callbacks.curves import Curve, draw_curves
from lightning_jv5.callbacks.matryoshka_evaluation import MatryoshkaEvaluation
from lightning_jv5.callbacks.report import log_figure, log_text
from lightning_jv5.callbacks.view_evaluation import ViewEvaluation, sorted_dims
from lightning_jv5.metrics.views import PRECISIONS, Precision
from lightning_jv5.tasks import Evaluation, EvaluationTask, Score, View

Mode = Literal["binary", "asymmetric", "rescored"]

_COLORS = {precision: color for color, precision in enumerate(PRECISIONS)}


class BinaryQuantization(ViewEvaluation):
    """Log what sign bits achieve, and how far they drop below floats of the same dim.

    As ``val/<task>/<measure>/binary`` and ``val/<task>/<main measure>/binary_drop``, or ``dim64_binary`` and
    ``dim64_binary_drop``; likewise for other precisions. The floats are scored in the same pass but not logged here.
    A task is scored in those precisions that say something of it (:attr:`~lightning_jv5.tasks.EvaluationTask`'s
    ``precisions``).

    ``val/grid/<task>`` shows every dim and precision with the share of the whole floats' score that is left and the
    bytes of a vector, as a heat map and as a table. With several dims, ``val/bytes`` draws the scores over the bytes.

    Args:
        dims: Coordinates to keep; by default those of a :class:`MatryoshkaEvaluation` among the trainer's callbacks,
            if there is one, and the whole embedding.
        modes: How stored sign bits are searched: ``"binary"`` by the query's sign bits, ``"asymmetric"`` by its floats,
            ``"rescored"`` by bits, then what was found is put in order by floats.
        int8: Whether to score one byte per coordinate, too.

    Raises:
        ValueError: As for :class:`MatryoshkaEvaluation`; or if a mode is unknown or repeated, or there is none.

    >>> [view.name for view in BinaryQuantization(modes=("binary", "asymmetric")).views()]
    ['', 'binary', 'asymmetric']
    """

    def __init__(
        self, dims: list[int] | None = None, modes: tuple[Mode, ...] = ("binary",), int8: bool = False
    ) -> None:
        known = get_args(Mode)
        if not modes or len(set(modes)) != len(modes) or not set(modes) <= set(known):
            raise ValueError(
                f"BinaryQuantization got modes {list(modes)}; need one or more of {list(known)}, each once. Correct "
                "the list."
            )
        self.dims = None if dims is None else sorted_dims(dims, type(self).__name__)
        self.modes, self.int8 = tuple(modes), int8
        self._dims_beside: list[int] = []
        self._main_metrics: dict[str, str] = {}
        self._width = 0

    @property
    def precisions(self) -> list[Precision]:
        """The precisions that are logged, from the most bits to the fewest."""
        wanted = {*self.modes, *(["int8"] if self.int8 else [])}
        return [precision for precision in PRECISIONS if precision in wanted]

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Look which dims others score, and refuse those that the student's embeddings are too small for."""
        student: Any = getattr(pl_module, "student", None)
        width = getattr(student, "dim", None)
        callbacks: Any = trainer
        beside = [callback for callback in callbacks.callbacks if isinstance(callback, MatryoshkaEvaluation)]
        dims = sorted({dim for callback in beside for dim in callback.choose_dims(pl_module)})
        self._dims_beside = [dim for dim in dims if dim != width]  # which is the whole embedding
        super().setup(trainer, pl_module, stage)

    def views(self) -> list[View]:
        """Return for each dim a view of floats and one of each precision, and the whole embedding."""
        dims: Sequence[int | None] = [*self._dims_beside, None] if self.dims is None else self.dims
        precisions: Sequence[Precision] = ["float", *self.precisions]
        return list(dict.fromkeys([View(), *(View(dim, precision) for dim in dims for precision in precisions)]))

    def measures(self, scores: Sequence[Score]) -> dict[str, float]:
        """Return every measure of the precisions, and the drop of the main one."""
        floats = {(score.task, score.view.dim): score.values for score in scores if score.view.precision == "float"}
        stored = [score for score in scores if score.view.precision != "float"]
        drops = {
            f"{score.task}/{main}/{score.view.name}_drop": floats[score.task, score.view.dim][main] - score.values[main]
            for score in stored
            for main in [self._main_metrics[score.task]]
        }
        return super().measures(stored) | drops

    def draw(self, trainer: Trainer, prefix: str, scores: Sequence[Score], tasks: Mapping[str, EvaluationTask]) -> None:
        """Draw the grid of each task, and all over the bytes."""
        if not trainer.is_global_zero:
            return
        grids = {
            name: compression_grid([score for score in scores if score.task == name], task.main_metric, self._width)
            for name, task in tasks.items()
        }
        for name, cells in grids.items():
            metric = tasks[name].main_metric
            figure = draw_grid(cells, title=f"{name}, step {trainer.global_step}", metric=metric)
            data = {"step": trainer.global_step, "metric": metric, "cells": grid_data(cells)}
            log_figure(trainer, f"{prefix}/grid/{name}", figure, data)
            log_text(trainer, f"{prefix}/grid/{name}", grid_table(cells), data)
        if len({cell.dim for cells in grids.values() for cell in cells}) > 1:
            metrics = {name: task.main_metric for name, task in tasks.items()}
            figure = draw_curves(
                {name: precision_curves(cells) for name, cells in grids.items()},
                title=f"Stored embeddings, step {trainer.global_step}",
                metric=metrics,
                size="bytes per vector",
            )
            rows = [{"task": name, **row} for name, cells in grids.items() for row in grid_data(cells)]
            log_figure(
                trainer, f"{prefix}/bytes", figure, {"step": trainer.global_step, "metric": metrics, "rows": rows}
            )

    def finish(self, trainer: Trainer, pl_module: LightningModule, prefix: str, evaluation: Evaluation) -> None:
        """Log the scores of the precisions and their drop."""
        self._main_metrics = {name: task.main_metric for name, task in evaluation.tasks.items()}
        self._width = evaluation.width
        super().finish(trainer, pl_module, prefix, evaluation)


def precision_curves(cells: Sequence[GridCell]) -> list[Curve]:
    """Return a line over bytes for each precision, that of floats solid.

    >>> [curve] = precision_curves([GridCell(64, "binary", 8, 0.5, 1.0), GridCell(32, "binary", 4, 0.4, 0.8)])
    >>> curve.sizes, curve.values
    ([4, 8], [0.4, 0.5])
    """
    curves = []
    for precision in PRECISIONS:
        points = sorted((cell.bytes_per_vector, cell.score) for cell in cells if cell.precision == precision)
        if points:
            curves.append(
                Curve(
                    precision,
                    [size for size, _ in points],
                    [value for _, value in points],
                    _COLORS[precision],
                    dashed=precision != "float",
                )
            )
    return curves
