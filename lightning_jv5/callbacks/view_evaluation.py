"""Look at the embeddings of an evaluation pass from other sides: fewer coordinates, fewer bits, no second encoding."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_jv5.callbacks.curves import Curve, draw_curves
from lightning_jv5.callbacks.report import log_figure
from lightning_jv5.tasks import EmbeddedTexts, Evaluation, EvaluationTask, Score, View
from lightning_jv5.tasks.trainer import begin_evaluation, shows_progress


class ViewEvaluation(Callback, ABC):
    """Score views of what the validation and test steps return, as ``val/<task>/<measure>/<view>``.

    Nothing is logged for a pass that is cut short. To look from another side, say which :meth:`views`; to make
    something else of the pass than scores, override :meth:`finish`.

    >>> class FirstHalf(ViewEvaluation):
    ...     def views(self):
    ...         return [View(dim=192)]
    >>> FirstHalf().measures([Score("small", View(dim=192), {"ndcg@10": 0.5}, complete=True)])
    {'small/ndcg@10/dim192': 0.5}
    """

    _evaluation: Evaluation | None = None

    @abstractmethod
    def views(self) -> Sequence[View]:
        """Return the views to score, each of another name."""

    def measures(self, scores: Sequence[Score]) -> dict[str, float]:
        """Return what to log, by name without the ``val/`` or ``test/``: by default every measure of every view."""
        return {
            "/".join(filter(None, (score.task, measure, score.view.name))): value
            for score in scores
            for measure, value in score.values.items()
        }

    def draw(self, trainer: Trainer, prefix: str, scores: Sequence[Score], tasks: Mapping[str, EvaluationTask]) -> None:
        """Make figures of the scores; by default none. Every rank calls it."""

    def finish(self, trainer: Trainer, pl_module: LightningModule, prefix: str, evaluation: Evaluation) -> None:
        """Log and draw what the whole pass gave. Every rank calls it.

        Args:
            trainer: The trainer.
            pl_module: The module, whose ``log`` is used.
            prefix: ``"val"`` or ``"test"``.
            evaluation: Has seen every text.
        """
        scores = evaluation.compute(progress=shows_progress(trainer))
        for name, value in self.measures(scores).items():
            # The metrics have merged the ranks: all have this value, and their maximum is exactly it
            pl_module.log(
                f"{prefix}/{name}",
                value,
                reduce_fx="max",
                sync_dist=True,
                prog_bar=False,
                batch_size=1,
                add_dataloader_idx=False,
            )
        self.draw(trainer, prefix, scores, evaluation.tasks)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse views that the student's embeddings are too small for."""
        check_dims(sorted({view.dim for view in self.views() if view.dim}), pl_module, type(self).__name__)

    def _begin(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._evaluation = begin_evaluation(trainer, self.views(), pl_module.device)

    def _update(self, outputs: Any) -> None:
        if self._evaluation is None:
            return
        if not isinstance(outputs, EmbeddedTexts):
            raise ValueError(
                f"{type(self).__name__} got a {type(outputs).__name__} from the evaluation step; need EmbeddedTexts. "
                "Return them from validation_step and test_step, as EmbeddingModule does."
            )
        self._evaluation.update(outputs)

    def _end(self, trainer: Trainer, pl_module: LightningModule, prefix: str) -> None:
        evaluation, self._evaluation = self._evaluation, None
        if evaluation is not None:
            self.finish(trainer, pl_module, prefix, evaluation)

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin a pass."""
        self._begin(trainer, pl_module)

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin a pass."""
        self._begin(trainer, pl_module)

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *args: Any, **kwargs: Any
    ) -> None:
        """Take the embeddings of a batch."""
        self._update(outputs)

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *args: Any, **kwargs: Any
    ) -> None:
        """Take the embeddings of a batch."""
        self._update(outputs)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Report the pass."""
        self._end(trainer, pl_module, "val")

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Report the pass."""
        self._end(trainer, pl_module, "test")


class MatryoshkaEvaluation(ViewEvaluation):
    """Log what is left when an embedding is cut to its first coordinates, and draw it as ``val/matryoshka``.

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

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Choose the dims where none were given, and refuse those that the student does not have."""
        if self._follows_width:
            student: Any = getattr(pl_module, "student", None)
            width = getattr(student, "dim", None)
            if width is None:
                raise ValueError(
                    f"MatryoshkaEvaluation got no dims, and {type(pl_module).__name__} has no student.dim to choose "
                    "them by. Give it dims."
                )
            self.dims = smaller_dims(width)
        super().setup(trainer, pl_module, stage)

    def views(self) -> list[View]:
        """Return a view for each dim."""
        return [View(dim=dim) for dim in self.dims]

    def draw(self, trainer: Trainer, prefix: str, scores: Sequence[Score], tasks: Mapping[str, EvaluationTask]) -> None:
        """Draw the main measure of each task over the dims."""
        if not trainer.is_global_zero:
            return
        values: dict[str, list[float]] = {name: [] for name in tasks}
        for score in scores:
            values[score.task].append(score.values[tasks[score.task].main_metric])
        metrics = {name: task.main_metric for name, task in tasks.items()}
        figure = draw_curves(
            {"": [Curve(name, self.dims, values[name]) for name in tasks]},
            title=f"Truncated embeddings, step {trainer.global_step}",
            metric=", ".join(dict.fromkeys(metrics.values())),
        )
        data = {"step": trainer.global_step, "metric": metrics, "dims": self.dims, "values": values}
        log_figure(trainer, f"{prefix}/matryoshka", figure, data)


class BinaryQuantization(ViewEvaluation):
    """Log what sign bits compared by Hamming distance achieve, and how far they drop below floats of the same dim.

    As ``val/<task>/<measure>/binary`` and ``val/<task>/<main measure>/binary_drop``, or ``dim64_binary`` and
    ``dim64_binary_drop`` where dims are given. The floats are scored in the same pass but not logged here.

    Args:
        dims: Coordinates to keep; by default the whole embedding.

    Raises:
        ValueError: As for :class:`MatryoshkaEvaluation`.

    >>> [view.name for view in BinaryQuantization().views() if view.precision == "binary"]
    ['binary']
    """

    def __init__(self, dims: list[int] | None = None) -> None:
        self.dims = None if dims is None else sorted_dims(dims, type(self).__name__)
        self._main_metrics: dict[str, str] = {}

    def views(self) -> list[View]:
        """Return a binary and a float view for each dim."""
        dims: Sequence[int | None] = [None] if self.dims is None else self.dims
        return [view for dim in dims for view in (View(dim, "binary"), View(dim))]

    def measures(self, scores: Sequence[Score]) -> dict[str, float]:
        """Return every measure of the bits, and the drop of the main one."""
        floats = {(score.task, score.view.dim): score.values for score in scores if score.view.precision == "float"}
        binary = [score for score in scores if score.view.precision == "binary"]
        drops = {
            f"{score.task}/{main}/{score.view.name}_drop": floats[score.task, score.view.dim][main] - score.values[main]
            for score in binary
            for main in [self._main_metrics[score.task]]
        }
        return super().measures(binary) | drops

    def finish(self, trainer: Trainer, pl_module: LightningModule, prefix: str, evaluation: Evaluation) -> None:
        """Log the scores of the bits and their drop."""
        self._main_metrics = {name: task.main_metric for name, task in evaluation.tasks.items()}
        super().finish(trainer, pl_module, prefix, evaluation)


def smaller_dims(width: int) -> list[int]:
    """Return the four largest powers of two below a width, ascending; the width itself where there are none.

    >>> smaller_dims(384), smaller_dims(1024), smaller_dims(4)
    ([32, 64, 128, 256], [64, 128, 256, 512], [1, 2])
    """
    return [2**power for power in range((width - 1).bit_length()) if 2**power < width][-4:] or [width]


def sorted_dims(dims: Sequence[int], owner: str) -> list[int]:
    """Return dims in ascending order.

    Raises:
        ValueError: If there are none, or one is below 1 or repeated.
    """
    if not dims or min(dims) < 1 or len(set(dims)) != len(dims):
        raise ValueError(
            f"{owner} got dims {list(dims)}; need one or more numbers of coordinates, each at least 1 and once. "
            "Correct the list."
        )
    return sorted(dims)


def check_dims(dims: Sequence[int], pl_module: LightningModule, owner: str) -> None:
    """Refuse dims that the module's student does not have, before hours of training rather than after.

    Raises:
        ValueError: If one is larger than the student's embeddings.
    """
    student: Any = getattr(pl_module, "student", None)
    dim = getattr(student, "dim", None)
    too_large = [wanted for wanted in dims if dim is not None and wanted > dim]
    if too_large:
        raise ValueError(
            f"{owner} got dims {too_large} for a student whose embeddings have {dim}; need at most {dim}. "
            f"Take {', '.join(map(str, too_large))} out of its dims."
        )
