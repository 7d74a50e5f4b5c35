"""Learning-rate schedules that count optimizer steps and learn from the trainer how many there will be."""

import math
from abc import abstractmethod

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler


class StepSchedule(LRScheduler):
    """Base of the schedules: a linear warm-up, then :meth:`decay`, as a factor on each group's learning rate.

    Args:
        optimizer: The optimizer whose learning rates are scheduled.
        warmup: Steps of linear warm-up from zero: a number of steps, or a share of all steps if below 1.
        total_steps: Optimizer steps of the whole run; by default the module fills in what the trainer expects.

    Raises:
        ValueError: If the warm-up is negative or longer than the run, or ``total_steps`` is not positive.
    """

    def __init__(self, optimizer: Optimizer, warmup: float = 0.05, total_steps: int | None = None) -> None:
        if warmup < 0 or (warmup >= 1 and warmup != int(warmup)):
            raise ValueError(f"Got warmup {warmup}; give a share of all steps in [0, 1), or a whole number of steps.")
        self.warmup = warmup
        self.total_steps: int | None = None
        self.warmup_steps = 0
        if total_steps is not None:
            self.plan(total_steps)
        super().__init__(optimizer)

    def plan(self, total_steps: int) -> None:
        """Fix the number of optimizer steps of the whole run."""
        if total_steps < 1:
            raise ValueError(f"Got total_steps {total_steps}; a schedule needs at least one optimizer step.")
        self.total_steps = total_steps
        self.warmup_steps = math.ceil(self.warmup * total_steps) if self.warmup < 1 else int(self.warmup)
        if self.warmup_steps > total_steps:
            raise ValueError(
                f"Got {self.warmup_steps} warm-up steps in a run of {total_steps}; "
                "shorten the warm-up, or give it as a share of the run (below 1)."
            )
        if hasattr(self, "base_lrs"):  # planned after construction: the first step's rate is already in the optimizer
            for group, lr in zip(self.optimizer.param_groups, self.get_lr(), strict=True):
                group["lr"] = lr
            self._last_lr = [group["lr"] for group in self.optimizer.param_groups]

    def factor(self, step: int) -> float:
        """Return what the learning rates are multiplied by at ``step`` (0 is the first optimizer step)."""
        if self.total_steps is None:
            return 1.0
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        decay_steps = self.total_steps - self.warmup_steps
        return self.decay(min(1.0, (step - self.warmup_steps) / decay_steps) if decay_steps else 1.0)

    @abstractmethod
    def decay(self, progress: float) -> float:
        """Return the factor after the warm-up; ``progress`` runs from 0 (warm-up done) to 1 (end of the run)."""

    def get_lr(self) -> list[float | Tensor]:
        """Return the learning rate of each group at the current step."""
        return [lr * self.factor(self.last_epoch) for lr in self.base_lrs]


class WarmupCosine(StepSchedule):
    """Linear warm-up, then half a cosine down to zero.

    >>> import torch
    >>> schedule = WarmupCosine(torch.optim.SGD([torch.zeros(1)], lr=1.0), warmup=2, total_steps=10)
    >>> [round(schedule.factor(step), 2) for step in (0, 1, 2, 6, 10)]
    [0.5, 1.0, 1.0, 0.5, 0.0]
    """

    def decay(self, progress: float) -> float:
        """Half a cosine."""
        return 0.5 * (1 + math.cos(math.pi * progress))


class WarmupLinear(StepSchedule):
    """Linear warm-up, then a straight line down to zero.

    >>> import torch
    >>> schedule = WarmupLinear(torch.optim.SGD([torch.zeros(1)], lr=1.0), warmup=0, total_steps=4)
    >>> [schedule.factor(step) for step in range(5)]
    [1.0, 0.75, 0.5, 0.25, 0.0]
    """

    def decay(self, progress: float) -> float:
        """A straight line."""
        return 1 - progress


class WarmupStableDecay(StepSchedule):
    """Linear warm-up, a plateau, then ``1 - sqrt`` down to zero: WSD, https://arxiv.org/abs/2405.18392 sec. 3.

    Args:
        optimizer: The optimizer whose learning rates are scheduled.
        warmup: Steps of linear warm-up from zero: a number of steps, or a share of all steps if below 1.
        decay_share: Share of the steps after the warm-up in which the rate falls, in (0, 1].
        total_steps: Optimizer steps of the whole run; by default the module fills in what the trainer expects.

    Raises:
        ValueError: If ``decay_share`` is outside (0, 1], or as in :class:`StepSchedule`.

    >>> import torch
    >>> optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    >>> schedule = WarmupStableDecay(optimizer, warmup=0, decay_share=0.5, total_steps=8)
    >>> [schedule.factor(step) for step in (0, 4, 5, 8)]
    [1.0, 1.0, 0.5, 0.0]
    """

    def __init__(
        self, optimizer: Optimizer, warmup: float = 0.05, decay_share: float = 0.2, total_steps: int | None = None
    ) -> None:
        if not 0 < decay_share <= 1:
            raise ValueError(f"Got decay_share {decay_share}; give the share of the run that decays, in (0, 1].")
        self.decay_share = decay_share
        super().__init__(optimizer, warmup, total_steps)

    def decay(self, progress: float) -> float:
        """A plateau, then one minus the square root."""
        into_decay = (progress - (1 - self.decay_share)) / self.decay_share
        return 1.0 if into_decay <= 0 else 1 - math.sqrt(into_decay)
