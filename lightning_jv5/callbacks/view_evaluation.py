"""Look at the embeddings of an evaluation pass from other sides: fewer coordinates, fewer bits, no second encoding."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_jv5.tasks import EmbeddedTexts, Evaluation, EvaluationTask, Score, View
from lightning_jv5.tasks.trainer import SharesEvaluation, begin_evaluation, embedded_texts, shows_progress


class ViewEvaluation(Callback, ABC):
    """Score views of what the validation and test steps return, as ``val/<task>/<measure>/<view>``.

    A module of this package scores the views of all callbacks in its own pass, each view once; for any other module
    that returns ``EmbeddedTexts`` the callback scores them itself. Nothing is logged for a pass that is cut short. To
    look from another side, say which :meth:`views`; to make something else of the pass than scores, override
    :meth:`finish`, and :meth:`see` to look at the embeddings themselves.

    >>> class FirstHalf(ViewEvaluation):
    ...     def views(self):
    ...         return [View(dim=192)]
    >>> FirstHalf().measures([Score("small", View(dim=192), {"ndcg@10": 0.5}, complete=True)])
    {'small/ndcg@10/dim192': 0.5}
    """

    _evaluation: Evaluation | None = None  # of a module that shares none

    @abstractmethod
    def views(self) -> Sequence[View]:
        """Return the views to score, each of another name; the same from ``setup`` to the end of the run.

        Whole embeddings, ``View()``, are logged by the module; a callback that wants them says in :meth:`measures` what
        else to log.
        """

    def takes_part(self, trainer: Trainer) -> bool:
        """Return whether to look at the pass that begins or runs; by default at each. All ranks decide alike."""
        return True

    def see(self, trainer: Trainer, evaluation: Evaluation, embedded: EmbeddedTexts) -> None:
        """Look at the embeddings of a batch of a pass that will see every text; by default not. Every rank calls it.

        Args:
            trainer: The trainer.
            evaluation: Of the pass.
            embedded: The batch; on some ranks it may be without texts.
        """

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
            evaluation: Has seen every text, in all views of the callback and perhaps in others.
        """
        scores = evaluation.compute(self.views(), progress=shows_progress(trainer))
        for name, value in self.measures(scores).items():
            log_score(pl_module, f"{prefix}/{name}", value)
        self.draw(trainer, prefix, scores, evaluation.tasks)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse views that the student's embeddings are too small for."""
        check_dims(sorted({view.dim for view in self.views() if view.dim}), pl_module, type(self).__name__)

    def _begin(self, trainer: Trainer, pl_module: LightningModule) -> None:
        alone = not isinstance(pl_module, SharesEvaluation) and self.takes_part(trainer)
        self._evaluation = begin_evaluation(trainer, self.views(), pl_module.device) if alone else None

    def _running(self, trainer: Trainer, pl_module: LightningModule) -> Evaluation | None:
        if not isinstance(pl_module, SharesEvaluation):
            return self._evaluation
        return pl_module.evaluation if self.takes_part(trainer) else None

    def _update(self, trainer: Trainer, pl_module: LightningModule, outputs: Any) -> None:
        evaluation = self._running(trainer, pl_module)
        if evaluation is None:
            return
        embedded = embedded_texts(outputs, type(self).__name__)
        if evaluation is self._evaluation:
            evaluation.update(embedded)
        self.see(trainer, evaluation, embedded)

    def _end(self, trainer: Trainer, pl_module: LightningModule, prefix: str) -> None:
        evaluation, self._evaluation = self._running(trainer, pl_module), None
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
        self._update(trainer, pl_module, outputs)

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *args: Any, **kwargs: Any
    ) -> None:
        """Take the embeddings of a batch."""
        self._update(trainer, pl_module, outputs)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Report the pass."""
        self._end(trainer, pl_module, "val")

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Report the pass."""
        self._end(trainer, pl_module, "test")


def log_score(pl_module: LightningModule, name: str, value: float) -> None:
    """Log what all ranks have computed alike, away from the progress bar. Every rank calls it, at the end of a pass.

    Args:
        pl_module: The module that logs.
        name: Log key, such as ``"val/small/ndcg@10/dim64"``.
        value: The value.

    Example::

        log_score(pl_module, "val/small/ndcg@10/dim64", 0.5)
    """
    pl_module.log(
        name,
        value,
        reduce_fx="max",  # the maximum of equal values is exactly that value, where a mean may round
        sync_dist=True,
        prog_bar=False,
        batch_size=1,
        add_dataloader_idx=False,
    )


def views_of_callbacks(trainer: Trainer) -> list[View]:
    """Return the views that the trainer's callbacks want of the pass that begins, each once.

    >>> from lightning_jv5.callbacks import BinaryQuantization, MatryoshkaEvaluation
    >>> callbacks = [MatryoshkaEvaluation([32]), BinaryQuantization([32])]
    >>> trainer = Trainer(accelerator="cpu", callbacks=callbacks, logger=False, enable_checkpointing=False)
    >>> [view.name for view in views_of_callbacks(trainer)]
    ['dim32', '', 'dim32_binary']
    """
    callbacks: Any = trainer
    wanted = [
        callback
        for callback in callbacks.callbacks
        if isinstance(callback, ViewEvaluation) and callback.takes_part(trainer)
    ]
    return list(dict.fromkeys(view for callback in wanted for view in callback.views()))


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
