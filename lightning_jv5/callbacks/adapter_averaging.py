"""The average of weights along a run, as the released retrieval adapter is one: measured beside the last weights."""

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn

from lightning_jv5.callbacks.report import run_folder
from lightning_jv5.callbacks.view_evaluation import ViewEvaluation, log_score
from lightning_jv5.callbacks.weight_averages import (
    add_snapshot,
    is_step,
    planned_steps,
    swapped_in,
    trainable_weights,
    update_moving_average,
)
from lightning_jv5.runs import AVERAGED_CHECKPOINT, CHECKPOINTS
from lightning_jv5.tasks import Evaluation, Score, View, evaluate
from lightning_jv5.tasks.trainer import evaluation_tasks

Measures = dict[tuple[str, str], float]  # by task and measure


class AdapterAveraging(ViewEvaluation):
    """Average the weights that train, score the average beside the last weights, and save it as ``averaged.ckpt``.

    The released retrieval adapter of arXiv:2602.15547 is the average of the last checkpoint and an earlier one, which
    is ``steps`` with one number. All parameters with ``requires_grad`` are averaged, tied ones once, as they are (the
    logarithm of a learnable temperature); frozen ones are neither copied nor changed, and buffers are the last.

    At each validation that sees every text, the scores of "what the average would be if the run ended now" are logged
    as ``val/<task>/<measure>/averaged``; it costs a second pass over the texts. Before there is a snapshot that is the
    weights alone, whose scores are logged without a second pass, so that a ``ModelCheckpoint`` can monitor the name
    from the first validation on. Training is not changed: the weights afterwards are those before, bit by bit.

    At the end of ``fit`` the average is saved beside the run's checkpoints, for ``load_from_checkpoint`` and
    ``validate --ckpt_path``; ``--ckpt_path=last`` passes over it, as it holds no optimizer. A run that fails, is
    interrupted or takes no snapshot writes none. Nothing is done under ``fast_dev_run``.

    Args:
        steps: Uniform average: the weights after each of these optimizer steps, and the last ones, count the same.
            Whole numbers from 1, or fractions of the run's length in (0, 1), to the nearest step before the last.
            Weights of a step count once, also where a snapshot is the last. Their sum is kept in float32 (float64 for
            float64 weights), which the few snapshots of a run cannot strain.
        ema_decay: Exponential moving average, in (0, 1): ``average = decay * average + (1 - decay) * weights``, from
            the weights after the first step. Kept in float64 (float32 on MPS, which has no other): at a decay of
            0.9999, float32 would stop following weights that differ from it by less than 0.03%.
        ema_every: Optimizer steps between two updates of that average, at the multiples of this number.

    Raises:
        ValueError: If not exactly one of ``steps`` and ``ema_decay`` is given, or one is out of range; at the start
            of a run, if a step is beyond its end, fractions meet a run of unknown length, the run that is resumed
            has averaged something else, or the strategy divides the weights among devices.

    >>> AdapterAveraging(steps=[0.5, 7000]).steps
    [0.5, 7000]
    """

    def __init__(
        self, steps: list[int | float] | None = None, ema_decay: float | None = None, ema_every: int = 1
    ) -> None:
        if (steps is None) == (ema_decay is None):
            raise ValueError(
                f"AdapterAveraging got steps {steps} and ema_decay {ema_decay}; need exactly one of them. Set steps "
                "for a uniform average, or ema_decay for a moving one."
            )
        if steps is not None and not (
            steps and len(set(steps)) == len(steps) and all(is_step(step) or 0 < step < 1 for step in steps)
        ):
            raise ValueError(
                f"AdapterAveraging got steps {list(steps)}; need whole numbers of optimizer steps, from 1, or "
                "fractions of the run's length in (0, 1), each once. Correct the list."
            )
        if ema_decay is not None and not 0 < ema_decay < 1:
            raise ValueError(f"AdapterAveraging got ema_decay {ema_decay}; need a number in (0, 1), such as 0.999.")
        if ema_every < 1:
            raise ValueError(f"AdapterAveraging got ema_every {ema_every}; need at least 1 optimizer step. Raise it.")
        self.steps = None if steps is None else list(steps)
        self.ema_decay, self.ema_every = ema_decay, ema_every
        self._forget()

    def _forget(self) -> None:
        self._is_moving = self.ema_decay is not None  # what is kept, which a checkpoint may say otherwise
        self._planned: list[int] = []  # the steps of this run
        self._seen = 0  # optimizer steps
        self._taken: list[int] = []  # steps of the snapshots in the sum
        self._kept: dict[str, Tensor] = {}  # the sum of the snapshots, or the moving average
        self._measured: tuple[int, Measures, Measures] | None = None  # at this step: the weights and the average
        self._report = ""

    def state_dict(self) -> dict[str, Any]:
        """Return the sum of the snapshots or the moving average, by parameter name, and which steps are in it."""
        return {"ema": self._is_moving, "seen": self._seen, "taken": list(self._taken), "kept": self._kept}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the average of the run that is resumed."""
        self._is_moving = state_dict["ema"]
        self._seen, self._taken, self._kept = state_dict["seen"], list(state_dict["taken"]), dict(state_dict["kept"])

    def views(self) -> list[View]:
        """Return the whole embedding."""
        return [View()]

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Forget an earlier run, and refuse a strategy under which no process has the weights."""
        if stage != "fit" or _is_trial(trainer):
            return
        self._forget()
        if isinstance(trainer.strategy, ModelParallelStrategy | FSDPStrategy | DeepSpeedStrategy):
            raise ValueError(
                f"AdapterAveraging got {type(trainer.strategy).__name__}, which divides weights among devices; need "
                "all trained weights in every process. Use trainer.strategy=ddp, or leave the callback out."
            )

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Turn fractions into steps; refuse those that the run does not come to, and what it was not begun with."""
        if _is_trial(trainer):
            return
        if self._is_moving != (self.ema_decay is not None):
            kinds = ("a uniform average (steps)", "a moving average (ema_decay)")
            raise ValueError(
                f"AdapterAveraging makes {kinds[not self._is_moving]}, and the checkpoint holds "
                f"{kinds[self._is_moving]}; need one kind in all of a run. Resume with the settings that it began "
                "with, or start a new run."
            )
        if self.steps is not None:
            self._planned = planned_steps(self.steps, trainer.estimated_stepping_batches)
            self._check_taken(self._seen)

    def _check_taken(self, step: int) -> None:
        """Refuse a run whose beginning was not averaged as this one asks."""
        wanted = [planned for planned in self._planned if planned <= step]
        if self._taken != wanted:
            raise ValueError(
                f"AdapterAveraging got steps {self.steps}, of which {wanted} have passed at step {step}, and from the "
                f"checkpoint snapshots of {self._taken}; need the same. Resume with the steps that the run began with "
                "(fractions move with the run's length), or start a new run."
            )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Follow the weights to their device; take a step that a resumed run had made but not yet counted."""
        if _is_trial(trainer):
            return
        weights = trainable_weights(pl_module)
        self._kept = {
            name: kept.to(weights[name].device) if name in weights else kept for name, kept in self._kept.items()
        }
        self._follow(trainer, pl_module)
        self._check_taken(trainer.global_step)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any) -> None:
        """Add the weights of an optimizer step; batches that only accumulate gradients leave them as they are."""
        if not _is_trial(trainer):
            self._follow(trainer, pl_module)

    def _follow(self, trainer: Trainer, pl_module: LightningModule) -> None:
        step = trainer.global_step
        if step == self._seen:
            return
        self._seen = step
        if step in self._planned:
            add_snapshot(self._kept, self._weights(pl_module))
            self._taken.append(step)
        elif self.ema_decay is not None and (not self._kept or step % self.ema_every == 0):
            update_moving_average(self._kept, self._weights(pl_module), self.ema_decay)

    def _weights(self, pl_module: LightningModule) -> dict[str, nn.Parameter]:
        weights = trainable_weights(pl_module)
        if self._kept and weights.keys() != self._kept.keys():
            changed = sorted(weights.keys() ^ self._kept.keys())
            raise ValueError(
                f"AdapterAveraging averages {len(self._kept)} parameters and got {len(weights)} that train, with other "
                f"names such as {changed[0]!r}; need the same in all of a run. Freeze and unfreeze before fit, and "
                "resume with the same model."
            )
        return weights

    @contextlib.contextmanager
    def _averaged(self, pl_module: LightningModule) -> Iterator[None]:
        """Let the module have the averaged weights inside the block."""
        weights = self._weights(pl_module)
        with swapped_in(weights.values(), self._averages(weights)):
            yield

    def _averages(self, weights: Mapping[str, Tensor]) -> Iterator[Tensor]:
        """Give the average one parameter at a time, for there need not be room for another copy of all."""
        if self.ema_decay is not None:
            yield from (self._kept[name] for name in weights)
            return
        counted = self._seen in self._taken
        for name, weight in weights.items():
            total = self._kept[name]
            yield (total if counted else total + weight) / (len(self._taken) + (not counted))

    def takes_part(self, trainer: Trainer) -> bool:
        """Return whether the pass is one of ``fit``: there is no average of weights otherwise."""
        return trainer.state.fn == TrainerFn.FITTING and not _is_trial(trainer)

    def finish(self, trainer: Trainer, pl_module: LightningModule, prefix: str, evaluation: Evaluation) -> None:
        """Score the average, and log it."""
        last = averaged = _by_task_and_measure(evaluation.compute(self.views()))
        if self._kept:
            with self._averaged(pl_module):
                averaged = _measures(trainer, pl_module, "Averaged")
        self._measured = (trainer.global_step, last, averaged)
        for (task, measure), value in averaged.items():
            log_score(pl_module, f"{prefix}/{task}/{measure}/averaged", value)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the average, and measure what the last validation has not."""
        if _is_trial(trainer):
            return
        if not self._kept:
            self._report = f"No {AVERAGED_CHECKPOINT}: the run ended at step {trainer.global_step}, before a snapshot."
            return
        path = averaged_checkpoint(trainer)
        tasks = evaluation_tasks(trainer)
        step, last, averaged = self._measured or (-1, {}, {})
        measure = bool(tasks) and step != trainer.global_step
        if measure:
            last = _measures(trainer, pl_module, "Last")
        with self._averaged(pl_module):
            if measure:
                averaged = _measures(trainer, pl_module, "Averaged")
            trainer.save_checkpoint(path, weights_only=True)
        self._report = f"Averaged weights: {path}"
        if tasks:
            mains = [(name, task.main_metric) for name, task in tasks.items()]
            table = averaging_table([(*main, last[main], averaged[main]) for main in mains])
            self._report = f"{table}\n{self._report}"

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the scores, now that the progress bar is closed."""
        if trainer.is_global_zero and self._report:
            print(f"\n{self._report}\n", flush=True)


def averaged_checkpoint(trainer: Trainer) -> str:
    """Return where the average is saved: beside what the first ``ModelCheckpoint`` keeps, else in the run's folder.

    >>> averaged_checkpoint(Trainer(default_root_dir="runs/small/version_0", logger=False, barebones=True))
    'runs/small/version_0/checkpoints/averaged.ckpt'
    """
    own = run_folder(trainer) / CHECKPOINTS
    kept = [callback.dirpath for callback in trainer.checkpoint_callbacks if isinstance(callback, ModelCheckpoint)]
    folder = next((folder for folder in kept if folder), own)
    return os.path.join(folder, AVERAGED_CHECKPOINT)


def averaging_table(rows: Sequence[tuple[str, str, float, float]]) -> str:
    """Return an aligned text table from rows of task, measure, score of the last weights and of the average.

    >>> print(averaging_table([("small", "ndcg@10", 0.5, 0.625)]))
    task   measure    last  averaged
    small  ndcg@10  0.5000    0.6250
    """
    cells = [("task", "measure", "last", "averaged")]
    cells += [(task, measure, f"{last:.4f}", f"{averaged:.4f}") for task, measure, last, averaged in rows]
    left, right = (max(len(row[column]) for row in cells) for column in (0, 1))
    return "\n".join(f"{a:<{left}}  {b:<{right}}  {c:>6}  {d:>8}" for a, b, c, d in cells)


def _measures(trainer: Trainer, pl_module: LightningModule, description: str) -> Measures:
    """Score the module with the weights that it has. Every rank calls it."""
    module: Any = pl_module

    def encode(texts: Sequence[str], role: str) -> Tensor:
        with trainer.precision_plugin.forward_context():  # as validation encodes
            embeddings: Tensor = module.encode(texts, role)
        return embeddings

    scores = evaluate(
        encode,
        evaluation_tasks(trainer),
        progress=trainer.progress_bar_callback is not None,
        description=description,
        device=pl_module.device,
    )
    return _by_task_and_measure(scores)


def _by_task_and_measure(scores: Sequence[Score]) -> Measures:
    return {(score.task, measure): value for score in scores for measure, value in score.values.items()}


def _is_trial(trainer: Trainer) -> bool:
    return bool(getattr(trainer, "fast_dev_run", False))
