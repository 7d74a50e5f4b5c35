"""Which rows a step trains on: a function of (seed, position) alone, so that resuming is setting the position."""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch.utils.data import Sampler


class BatchOrder(Sampler[list[int]]):
    """Batches of row numbers: permutation after permutation, and each rank its own slice of the global batch.

    Iterating gives the next ``len(self)`` batches from the position on, wherever in a permutation that is: where
    Lightning trains on a part of them (``limit_train_batches``), the next epoch goes on with the others.

    Args:
        rows: Number of rows in the data set.
        batch_size: Rows in a global batch, over all ranks.
        seed: Seed of the permutations.
        rank: This process's rank.
        ranks: Number of processes; must divide ``batch_size``.
        position: Tells how many batches have been trained on so far; asked whenever an iteration begins.

    Raises:
        ValueError: If the batch is larger than the set, or the ranks do not divide it.

    >>> list(BatchOrder(4, 2, seed=0))
    [[0, 2], [3, 1]]
    >>> list(BatchOrder(4, 2, seed=0, position=lambda: 1))
    [[3, 1], [2, 0]]
    """

    def __init__(
        self,
        rows: int,
        batch_size: int,
        *,
        seed: int,
        rank: int = 0,
        ranks: int = 1,
        position: Callable[[], int] = lambda: 0,
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

    def __len__(self) -> int:
        """Batches of a whole permutation; the rows that do not fill a batch are left out, others in each."""
        return self.rows // self.batch_size

    def __iter__(self) -> Iterator[list[int]]:
        """Yield as many batches as a permutation has, from the position on."""
        first = self.position()
        permutation: Sequence[int] = []
        for position in range(first, first + len(self)):
            epoch, step = divmod(position, len(self))
            if position == first or step == 0:
                permutation = self._permutation(epoch)
            yield self._slice(permutation, step)

    def _permutation(self, epoch: int) -> Sequence[int]:
        generator = torch.Generator().manual_seed(hash((self.seed, epoch)) & 0x7FFF_FFFF_FFFF_FFFF)
        permutation: list[int] = torch.randperm(self.rows, generator=generator).tolist()
        return permutation

    def _slice(self, permutation: Sequence[int], step: int) -> list[int]:
        local = self.batch_size // self.ranks
        start = step * self.batch_size + self.rank * local
        return list(permutation[start : start + local])
