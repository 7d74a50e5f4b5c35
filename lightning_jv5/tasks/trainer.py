"""Between a Trainer's evaluation loop and the tasks: what the module and the callbacks share."""

from collections.abc import Mapping, Sequence
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_info

from lightning_jv5.metrics.views import View
from lightning_jv5.tasks.evaluation import Evaluation
from lightning_jv5.tasks.task import EmbeddedTexts, EvaluationTask


class SharesEvaluation:
    """A module that scores the views of all callbacks in its own pass, so that what several want is scored once.

    Attributes:
        evaluation: Of the pass that runs, from the module's epoch start until its epoch end, which comes after that of
            the callbacks; None where the pass does not see every text.
    """

    evaluation: Evaluation | None = None


def embedded_texts(outputs: Any, owner: str) -> EmbeddedTexts:
    """Return what an evaluation step gave, if it can be scored.

    Args:
        outputs: What the step returned.
        owner: Who asks, for the error.

    Raises:
        ValueError: If it cannot.

    >>> embedded_texts(None, "MatryoshkaEvaluation")
    Traceback (most recent call last):
        ...
    ValueError: MatryoshkaEvaluation got a NoneType from the evaluation step; need EmbeddedTexts. Return them from ...
    """
    if not isinstance(outputs, EmbeddedTexts):
        raise ValueError(
            f"{owner} got a {type(outputs).__name__} from the evaluation step; need EmbeddedTexts. Return them from "
            "validation_step and test_step, as EmbeddingModule does."
        )
    return outputs


def evaluation_tasks(trainer: Trainer) -> Mapping[str, EvaluationTask]:
    """Return the tasks of the running stage; none where the loaders are not an EmbeddingDataModule's."""
    datamodule: Any = getattr(trainer, "datamodule", None)
    if not hasattr(datamodule, "tasks"):
        return {}
    tasks: Mapping[str, EvaluationTask] = datamodule.tasks("test" if trainer.testing else "validate")
    return tasks


def begin_evaluation(trainer: Trainer, views: Sequence[View], device: Any = None) -> Evaluation | None:
    """Return what scores the views in the pass that begins, or None where the pass will not see every text.

    The sanity check, ``fast_dev_run`` and limits on batches cut a corpus short. Retrieval from a part of a corpus is
    easier, so such a score must never be logged, monitored or compared.
    """
    tasks = evaluation_tasks(trainer)
    if not tasks or not views or trainer.sanity_checking:
        return None
    loaders: Any = trainer.test_dataloaders if trainer.testing else trainer.val_dataloaders
    limits = trainer.num_test_batches if trainer.testing else trainer.num_val_batches
    return None if is_cut_short(trainer, loaders, limits) else Evaluation(tasks, views, device)


def shows_progress(trainer: Trainer) -> bool:
    """Return whether this process shows progress bars."""
    return trainer.is_global_zero and trainer.progress_bar_callback is not None


def is_cut_short(trainer: Trainer, loaders: Sequence[Any], limits: Sequence[float]) -> bool:
    """Return whether a limit is below the number of batches of its loader, on any rank: all decide alike."""
    here = any(limit < len(loader) for loader, limit in zip(loaders, limits, strict=True))
    return bool(trainer.strategy.reduce_boolean_decision(here, all=False))


def check_monitored_scores(trainer: Trainer) -> None:
    """Refuse a limit on validation batches where a callback monitors a score that then would never be logged.

    Raises:
        ValueError: If there is such a callback.
    """
    running: Any = trainer
    tasks = evaluation_tasks(trainer)
    if not tasks or running.fast_dev_run:  # which turns off the callbacks, too
        return
    loaders, limit = running.datamodule.val_dataloader(), running.limit_val_batches
    limits = [limit if isinstance(limit, int) else int(limit * len(loader)) for loader in loaders]
    if not is_cut_short(trainer, loaders, limits):
        return
    rank_zero_info(
        f"trainer.limit_val_batches={limit} lets the evaluation tasks see a part of their texts, so they are not "
        "scored; for a cheaper evaluation set the task's max_documents or max_texts, or give it fewer rows."
    )
    for callback in running.callbacks:
        monitor = getattr(callback, "monitor", None) or ""
        if any(monitor.startswith(f"val/{task}/") for task in tasks):
            raise ValueError(
                f"{type(callback).__name__} monitors {monitor!r}, but trainer.limit_val_batches={limit} lets the task "
                "see a part of its texts, and such a score is not logged. Remove the limit, and set the task's "
                "max_documents or max_texts, or give it fewer rows, for a cheaper evaluation."
            )
