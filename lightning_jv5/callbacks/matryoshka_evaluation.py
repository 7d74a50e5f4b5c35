"""What is left when embeddings are cut to their first coordinates."""

from collections.abc import Mapping, Sequence
from typing import Any

from lightning.pytorch import LightningModule, Trainer

from lightning_jv5.callbacks.curves import Curve, draw_curves
from lightning_jv5.callbacks.report import log_figure
from lightning_jv5.callbacks.view_evaluation import ViewEvaluation, smaller_dims, sorted_dims
from lightning_jv5.tasks import EvaluationTask, Score, View


class MatryoshkaEvaluation(ViewEvaluation):
    """Log what is left when an embedding is cut to its first coordinates, and draw it as ``val/matryoshka``.

    Tasks of the same main measure share a panel.

    Args:
        dims: Coordinates to keep, such as ``[32, 64, 128]``; ascending order is not needed. By default the four largest
            powers of two below the student's width, which suit any model.

    Raises:
        ValueError: If there are none, one is below 1 or repeated; at setup, if one is larger than the embeddings, or
            none are given and the module does not say how wide its student is.

    >>> [view.name for view in MatryoshkaEvaluation([64, 32]).views()]
    ['dim32', 'dim64']
    """

    def __init__(self, dims: list[int] | None = None) -> None:
        self.dims = [] if dims is None else sorted_dims(dims, type(self).__name__)
        self._follows_width = dims is None

    def choose_dims(self, pl_module: LightningModule) -> list[int]:
        """Return the dims, chosen by the student's width where none were given.

        Raises:
            ValueError: If the module does not say how wide its student is.
        """
        if self._follows_width:
            student: Any = getattr(pl_module, "student", None)
            width = getattr(student, "dim", None)
            if width is None:
                raise ValueError(
                    f"MatryoshkaEvaluation got no dims, and {type(pl_module).__name__} has no student.dim to choose "
                    "them by. Give it dims."
                )
            self.dims = smaller_dims(width)
        return self.dims

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Choose the dims where none were given, and refuse those that the student does not have."""
        self.choose_dims(pl_module)
        super().setup(trainer, pl_module, stage)

    def views(self) -> list[View]:
        """Return a view for each dim."""
        return [View(dim=dim) for dim in self.dims]

    def draw(self, trainer: Trainer, prefix: str, scores: Sequence[Score], tasks: Mapping[str, EvaluationTask]) -> None:
        """Draw the main measure of each task over the dims."""
        if not trainer.is_global_zero:
            return
        metrics = {name: task.main_metric for name, task in tasks.items()}
        values = {
            name: [score.values[metric] for score in scores if score.task == name] for name, metric in metrics.items()
        }
        groups = [[name for name in tasks if metrics[name] == metric] for metric in dict.fromkeys(metrics.values())]
        titles = [", ".join(group) for group in groups] if len(groups) > 1 else [""]  # the legend says it
        figure = draw_curves(
            {
                title: [Curve(name, self.dims, values[name]) for name in group]
                for title, group in zip(titles, groups, strict=True)
            },
            title=f"Truncated embeddings, step {trainer.global_step}",
            metric={title: metrics[group[0]] for title, group in zip(titles, groups, strict=True)},
        )
        data = {"step": trainer.global_step, "metric": metrics, "dims": self.dims, "values": values}
        log_figure(trainer, f"{prefix}/matryoshka", figure, data)
