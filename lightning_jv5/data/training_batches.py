"""The training data as the loader sees it: a step's number in, its batch out."""

from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

from torch.utils.data import Dataset, Sampler

from lightning_jv5.data.batches import TextBatch
from lightning_jv5.data.mixture import Draw, MixturePlan


class BatchesOfSet(Protocol):
    """The batches of one data set: :class:`TrainingRows` or :class:`StreamedRows`."""

    def batch(self, draw: Draw, part: slice) -> TextBatch:
        """Return a part of a global batch."""


class TrainingBatches(Dataset[TextBatch]):
    """For each step, this process's part of the global batch that the plan says.

    All processes draw the same set in a step and take consecutive, disjoint parts.

    Args:
        plan: Which set each step draws from.
        sets: The batches of each set.
        rank: This process's rank.
        ranks: Number of processes.

    Raises:
        ValueError: If the ranks do not divide a batch size.
    """

    def __init__(self, plan: MixturePlan, sets: Mapping[str, BatchesOfSet], *, rank: int = 0, ranks: int = 1) -> None:
        for name, planned in plan.sets.items():
            if planned.batch_size % ranks:
                raise ValueError(
                    f"Got a global batch of {planned.batch_size} rows of {name!r} for {ranks} processes; need a "
                    f"multiple of {ranks}, as each process takes an equal part. Change its batch_size."
                )
        self.plan, self.sets, self.rank, self.ranks = plan, dict(sets), rank, ranks

    def __getitem__(self, step: int) -> TextBatch:
        """Return the batch of a step."""
        draw = self.plan.draw(step)
        local = self.plan.sets[draw.dataset].batch_size // self.ranks
        return self.sets[draw.dataset].batch(draw, slice(self.rank * local, (self.rank + 1) * local))


class Steps(Sampler[int]):
    """The numbers of the next ``length`` steps.

    Where Lightning trains on a part of them (``limit_train_batches``), the next epoch goes on with the others.

    Args:
        length: Steps in an epoch.
        position: Tells how many steps have been trained on so far; asked whenever an iteration begins.

    >>> list(Steps(3, position=lambda: 5))
    [5, 6, 7]
    """

    def __init__(self, length: int, position: Callable[[], int]) -> None:
        self.length, self.position = length, position

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[int]:
        first = self.position()
        return iter(range(first, first + self.length))
