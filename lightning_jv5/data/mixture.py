"""Which data set a step draws from, and which of its rows: a function of (seed, step) alone."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lightning_jv5.data.keyed import key, permuted, uniform_at

_STEPS_PER_BLOCK = 1 << 16  # steps that are planned together, and remembered


@dataclass(frozen=True)
class PlannedSet:
    """What a plan knows about a data set.

    Attributes:
        rows: How many rows can be drawn; None for a stream, which has an order of its own.
        batch_size: Rows in a global batch of it.
        weight: How often it is drawn, in proportion to the other sets' weights.
    """

    rows: int | None
    batch_size: int
    weight: float = 1.0


@dataclass(frozen=True)
class Draw:
    """What a step is drawn from.

    Attributes:
        step: The micro-batch, counted over the whole run.
        dataset: Name of the data set.
        batch: Which of the set's batches this is: how often the set has been drawn before.
    """

    step: int
    dataset: str
    batch: int


class MixturePlan:
    """One data set for each step, at random by weight; and one permutation of its rows after the other.

    Nothing is kept that grows with the rows or with the steps between 0 and the one that is asked for, save one count
    for each set and 65,536 steps.

    Args:
        sets: The data sets by name.
        seed: Decides the draws and the permutations.

    Raises:
        ValueError: If there is no set, a weight is negative or not finite, all are zero, or a batch is larger than its
            set.

    >>> plan = MixturePlan({"a": PlannedSet(6, 2), "b": PlannedSet(4, 4, weight=0.5)}, seed=0)
    >>> [(draw.dataset, draw.batch) for draw in map(plan.draw, range(5))]
    [('b', 0), ('a', 0), ('a', 1), ('a', 2), ('a', 3)]
    >>> sorted(plan.rows(plan.draw(0)).tolist())
    [0, 1, 2, 3]
    """

    def __init__(self, sets: Mapping[str, PlannedSet], seed: int) -> None:
        if not sets:
            raise ValueError("Got no data sets to draw from; name at least one.")
        for name, planned in sets.items():
            if not 0 <= planned.weight < np.inf:
                raise ValueError(f"Got weight {planned.weight} for the data set {name!r}; need a number from 0 up.")
            if planned.batch_size < 1 or (planned.rows is not None and planned.batch_size > planned.rows):
                raise ValueError(
                    f"Got a batch size of {planned.batch_size} for the data set {name!r} of {planned.rows} rows; need "
                    f"between 1 and {planned.rows}. Lower its batch_size, or give it more rows."
                )
        self._names = sorted(sets)  # in which order they are written down must not matter
        weights = np.array([sets[name].weight for name in self._names], dtype=np.float64)
        if not weights.sum() > 0:
            raise ValueError(f"Got weights of zero for all data sets ({', '.join(sets)}); raise at least one.")
        self.sets, self.seed = dict(sets), seed
        self._bounds = np.cumsum(weights / weights.sum())
        self._bounds[np.flatnonzero(weights)[-1] :] = 1.0  # rounding must not leave a number above the last bound
        self._draw_key = key("draws", seed)
        self._before = [np.zeros(len(sets), dtype=np.int64)]  # draws of each set before each block of steps
        self._block: tuple[int, NDArray[np.int64], NDArray[np.int64]] | None = None

    def draw(self, step: int) -> Draw:
        """Return which set the step draws from, and which of its batches.

        Raises:
            ValueError: If the step is negative.
        """
        if step < 0:
            raise ValueError(f"Got step {step}; the first is 0.")
        block, offset = divmod(step, _STEPS_PER_BLOCK)
        chosen, batches = self._planned(block)
        return Draw(step, self._names[chosen[offset]], int(batches[offset]))

    def drawn(self, step: int) -> dict[str, int]:
        """Return how often each set has been drawn before a step."""
        block, offset = divmod(step, _STEPS_PER_BLOCK)
        chosen, _ = self._planned(block)
        counts = self._before[block] + np.bincount(chosen[:offset], minlength=len(self._names))
        return dict(zip(self._names, counts.tolist(), strict=True))

    def rows(self, draw: Draw, again: int = 0) -> NDArray[np.int64]:
        """Return the rows of the global batch, int64, shape ``(batch_size,)``.

        The rows that do not fill a batch at the end of a permutation are left out, others in each.

        Args:
            draw: From :meth:`draw`.
            again: 0, or which substitute is asked for: other rows for the same step, to replace some of them.

        Raises:
            ValueError: If the set is a stream.
        """
        planned = self.sets[draw.dataset]
        if planned.rows is None:
            raise ValueError(f"The data set {draw.dataset!r} is a stream; its rows come in its own order.")
        epoch, batch = divmod(draw.batch, planned.rows // planned.batch_size)
        positions = np.arange(planned.batch_size) + batch * planned.batch_size
        return permuted(positions, planned.rows, key("rows", self.seed, draw.dataset, epoch, again))

    def batches(self) -> int | None:
        """Return how many batches all sets that are drawn have together; None if one of them is a stream."""
        drawn = [planned for planned in self.sets.values() if planned.weight]
        counts = [planned.rows and planned.rows // planned.batch_size for planned in drawn]
        return None if None in counts else sum(count for count in counts if count is not None)

    def _planned(self, block: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return, for each step of a block, which set it draws and how often that set was drawn before."""
        if self._block is None or self._block[0] != block:
            while len(self._before) <= block:
                earlier = self._chosen(len(self._before) - 1)
                self._before.append(self._before[-1] + np.bincount(earlier, minlength=len(self._names)))
            chosen = self._chosen(block)
            batches = np.empty_like(chosen)
            for number, before in enumerate(self._before[block].tolist()):
                steps = np.flatnonzero(chosen == number)
                batches[steps] = before + np.arange(len(steps))
            self._block = block, chosen, batches
        return self._block[1:]

    def _chosen(self, block: int) -> NDArray[np.int64]:
        if len(self._names) == 1:
            return np.zeros(_STEPS_PER_BLOCK, dtype=np.int64)
        steps = np.arange(block * _STEPS_PER_BLOCK, (block + 1) * _STEPS_PER_BLOCK)
        return np.searchsorted(self._bounds, uniform_at(self._draw_key, steps), side="right")


def weights_by_size(batches: Mapping[str, int], exponent: float) -> dict[str, float]:
    """Return weights in proportion to the number of batches to the power of ``exponent``.

    With 1 every row of every set is trained on equally often, with 0 every set is.

    Raises:
        ValueError: If the exponent is not between 0 and 1.

    >>> weights_by_size({"large": 400, "small": 100}, exponent=0.5)
    {'large': 20.0, 'small': 10.0}
    """
    if not 0 <= exponent <= 1:
        raise ValueError(f"Got size_exponent {exponent}; need between 0 (all sets alike) and 1 (by size).")
    return {name: float(count) ** exponent for name, count in batches.items()}
