"""Rows of all ranks together, with their gradient; ranks may have different numbers of them."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist


def rank_and_ranks() -> tuple[int, int]:
    """Return this process's rank and the number of processes; 0 and 1 where there is no process group."""
    if not (dist.is_available() and dist.is_initialized()):
        return 0, 1
    return dist.get_rank(), dist.get_world_size()


def rows_of_ranks(*counts: int, device: torch.device) -> list[list[int]]:
    """Return the counts of every rank, by rank. Every rank calls it."""
    _, ranks = rank_and_ranks()
    own = torch.tensor(counts, device=device)
    if ranks == 1:
        return [list(counts)]
    gathered = [torch.empty_like(own) for _ in range(ranks)]
    dist.all_gather(gathered, own)
    rows: list[list[int]] = torch.stack(gathered).tolist()
    return rows


def gather_rows(rows: Tensor, counts: Sequence[int]) -> Tensor:
    """Return the rows of all ranks, one rank after the other. Every rank calls it.

    The gradient of a row is the sum of those that all ranks have for it.

    Args:
        rows: This rank's; shape ``(counts[rank], ...)``.
        counts: How many rows each rank has.

    Returns:
        Shape ``(sum of counts, ...)``.
    """
    gathered: Tensor = _GatherRows.apply(rows, tuple(counts))  # type: ignore[no-untyped-call]
    return gathered


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, counts: tuple[int, ...]) -> Tensor:
        ctx.counts = counts
        padded = rows.new_zeros(max(counts), *rows.shape[1:])  # collectives want the same shape everywhere
        padded[: len(rows)] = rows
        gathered = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(gathered, padded)
        return torch.cat([part[:count] for part, count in zip(gathered, counts, strict=True)])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        # Not a reduce-scatter, which would send half as much: gloo has none for ranks of different sizes
        gradient = gradient.contiguous().clone()
        dist.all_reduce(gradient)
        first = sum(ctx.counts[: dist.get_rank()])
        return gradient[first : first + ctx.counts[dist.get_rank()]], None
