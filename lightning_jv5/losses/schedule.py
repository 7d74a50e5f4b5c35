"""Weights and temperatures that change over a run, as functions of the optimizer step alone: nothing to resume."""

import math
from abc import ABC, abstractmethod

from torch import Tensor

from lightning_jv5.rebuildable import Rebuildable


class Schedule(Rebuildable, ABC):
    """A number for every optimizer step, for a term's weight or a temperature. Write :meth:`at`."""

    @abstractmethod
    def at(self, step: int) -> float:
        """Return the value in optimizer step ``step``; the first is 0."""

    def watched(self, name: str, step: int) -> dict[str, Tensor | float]:
        """Return what is worth a curve in the logs, by name."""
        return {name: self.at(step)}


class Constant(Schedule):
    """The same number in every step; what a plain number stands for.

    >>> Constant(0.02).at(1000)
    0.02
    """

    def __init__(self, value: float) -> None:
        if not math.isfinite(value):
            raise ValueError(f"Got the value {value}; need a finite number.")
        self.value = value

    def at(self, step: int) -> float:
        """Return the number."""
        return self.value

    def watched(self, name: str, step: int) -> dict[str, Tensor | float]:
        """Return nothing: a constant is in the config."""
        return {}


class LinearRamp(Schedule):
    """A straight line from one value to another, constant before and after.

    Args:
        start: Value up to and with ``begin``.
        end: Value ``steps`` optimizer steps later, and ever after.
        steps: Length of the ramp in optimizer steps.
        begin: Optimizer step at which it begins.

    Raises:
        ValueError: If a value is not finite, ``steps`` is below 1 or ``begin`` below 0.

    >>> [LinearRamp(0.0, 1.0, steps=4, begin=2).at(step) for step in (0, 2, 4, 9)]
    [0.0, 0.0, 0.5, 1.0]
    """

    def __init__(self, start: float, end: float, steps: int, begin: int = 0) -> None:
        if not (math.isfinite(start) and math.isfinite(end)):
            raise ValueError(f"Got a ramp from {start} to {end}; need finite numbers.")
        if steps < 1 or begin < 0:
            raise ValueError(f"Got a ramp of {steps} steps from step {begin}; need at least 1, from step 0 or later.")
        self.start, self.end, self.steps, self.begin = start, end, steps, begin

    def at(self, step: int) -> float:
        """Return the value on the line."""
        progress = min(1.0, max(0.0, (step - self.begin) / self.steps))
        return self.start + (self.end - self.start) * self.shape(progress)

    def shape(self, progress: float) -> float:
        """Return how much of the way is made, where ``progress`` of the steps are."""
        return progress


class CosineRamp(LinearRamp):
    """As :class:`LinearRamp`, but half a cosine: it leaves and arrives gently.

    >>> [round(CosineRamp(1.0, 0.0, steps=4).at(step), 3) for step in range(5)]
    [1.0, 0.854, 0.5, 0.146, 0.0]
    """

    def shape(self, progress: float) -> float:
        """Half a cosine."""
        return (1 - math.cos(math.pi * progress)) / 2


def as_schedule(value: "float | Schedule") -> Schedule:
    """Return a schedule as it is, and a number as one that never changes."""
    return value if isinstance(value, Schedule) else Constant(value)
