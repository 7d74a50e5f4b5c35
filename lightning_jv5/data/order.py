"""Which rows a step trains on: a function of (seed, position) alone, so that resuming is setting the position."""

from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import Sampler


class BatchOrder(Sampler[list[int]]):
    """Batches of row numbers: every epoch a new permutation, and each rank its own slice of the global batch.

    Args:
        rows: Number of rows in the data set.
        batch_size: Rows in a global batch, over all ranks.
        seed: Seed of the permutations.
        rank: This process's rank.
        ranks: Number of processes; must divide ``batch_size``.
        position: Batch to start at, counted over all epochs; batches before it have been trained on.

    Raises:
        ValueError: If the batch is larger than the set, or the ranks do not divide it.

    >>> list(BatchOrder(4, 2, seed=0))
    [[0, 2], [3, 1]]
    """

    def __init__(
        self, rows: int, batch_size: int, *, seed: int, rank: int = 0, ranks: int = 1, position: int = 0
    ) -> None:
        if batch_size < 1 or batch_size > rows:
            raise ValueError(
                f"Got a batch size of {batch_size} for a data set of {rows} rows; need between 1 and {rows}."
            )
        if batch_size % ranks:
            raise ValueError(
                f"Got a global batch of {batch_size} rows for {ranks} processes; need a multiple of {ranks}, "
                "as each process takes an equal part."
            )
        self.rows, self.batch_size, self.seed = rows, batch_size, seed
        self.rank, self.ranks = rank, ranks
        self.position = position
        self.epoch = 0
        self.sampler = self  # where Lightning looks for set_epoch

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch the next iteration is; Lightning does."""
        self.epoch = epoch

    def __len__(self) -> int:
        """Batches of a whole epoch, also where this one starts in the middle: Lightning counts from its beginning."""
        return self.rows // self.batch_size

    def __iter__(self) -> Iterator[list[int]]:
        """Yield the batches of the epoch, or what is left of it where ``position`` lies in its middle."""
        # Loader processes ask for the first batches before Lightning has called set_epoch
        epoch = max(self.epoch, self.position // len(self))
        permutation = self._permutation(epoch)
        for step in range(max(0, self.position - epoch * len(self)), len(self)):
            yield self._slice(permutation, step)

    def _permutation(self, epoch: int) -> Sequence[int]:
        generator = torch.Generator().manual_seed(hash((self.seed, epoch)) & 0x7FFF_FFFF_FFFF_FFFF)
        permutation: list[int] = torch.randperm(self.rows, generator=generator).tolist()
        return permutation

    def _slice(self, permutation: Sequence[int], step: int) -> list[int]:
        local = self.batch_size // self.ranks
        start = step * self.batch_size + self.rank * local
        return list(permutation[start : start + local])
