"""What is left when embeddings are cut to their first coordinates."""

from collections.abc import Mapping, Sequence

from lightning.pytorch import Trainer

from lightning_jv5.callbacks.curves import Curve, draw_curves
from lightning_jv5.callbacks.report import log_figure
from lightning_jv5.callbacks.view_evaluation import ViewEvaluation, sorted_dims
from lightning_jv5.tasks import EvaluationTask, Score, View


class MatryoshkaEvaluation(ViewEvaluation):
    """Log what is left when an embedding is cut to its first coordinates, and draw it as ``val/matryoshka``.

    Tasks of the same main measure share a panel.

    Args:
        dims: Coordinates to keep, such as ``[32, 64, 128]``; ascending order is not needed.

    Raises:
        ValueError: If there are none, one is below 1 or repeated; at setup, if one is larger than the embeddings.

    >>> [view.name for view in MatryoshkaEvaluation([64, 32]).views()]
    ['dim32', 'dim64']
    """

    def __init__(self, dims: list[int]) -> None:
        self.dims = sorted_dims(dims, type(self).__name__)

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
