"""Losses over all pairs of embeddings, a tile of rows at a time: the matrix of all similarities is never held.

A loss that sums over rows (InfoNCE's softmax over the documents of each query, say) is complete as soon as a row's
similarities to all columns are there. So one pass over tiles of rows gives the loss *and* its gradient: three products
of ``2 * rows * columns * dim`` operations, the same as with the whole matrix, nothing recomputed, and memory for one
tile. Under Matryoshka the inner products of the first ``k`` coordinates accumulate from slice to slice, and each dim's
cosines only rescale them; in the gradient the tiles of the dims add up from the largest down. All dims then cost the
products of the largest one.
"""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lightning_jv5.losses.unit import inverse_lengths, unit_rows

# Numbers in one tile, and in the block of it that is looked at together. On two CPU threads, at 16,384 columns:
# products want large tiles (2**20 take 1.5 times as long as 2**23), but what is done to each number wants blocks that
# stay in the cache (2**20 take half as long as 2**23). Elsewhere 256 MiB: a guess, made without a GPU at hand.
_TILE_NUMBERS = {"cpu": (2**23, 2**20)}
_TILE_NUMBERS_ELSEWHERE = (2**26, 2**26)


class TileScore(Protocol):
    """The loss of some rows, from their cosines with all columns."""

    def prepare(self, own: slice) -> Any:
        """Return what the score of these rows needs beside their cosines (a mask, say): asked once for all dims."""

    def __call__(self, cosines: Tensor, own: slice, prepared: Any) -> Tensor:
        """Return the loss of these rows, a scalar, and overwrite the cosines with its gradient towards them.

        Args:
            cosines: Shape ``(rows of own, columns)``.
            own: Which rows they are.
            prepared: What :meth:`prepare` returned for them.
        """


def sum_over_row_tiles(
    rows: Tensor,
    columns: Tensor,
    score: TileScore,
    *,
    temperature: Tensor,
    dims: Sequence[int] | None = None,
    weights: Sequence[float] | None = None,
    tile_rows: int | None = None,
) -> Tensor:
    """Sum a score of cosines over all rows, and over Matryoshka dims, in the memory of one tile.

    Args:
        rows: Embeddings of any length; shape ``(rows, dim)``.
        columns: What each row is compared with; shape ``(columns, dim)``.
        score: The loss of some rows; see :class:`TileScore`. It may depend on ``temperature`` only through
            ``cosines / temperature``, which is how that gets its gradient.
        temperature: A scalar.
        dims: Numbers of leading coordinates to score; by default all of them.
        weights: Weight of each dim; by default 1.
        tile_rows: Rows in a tile; by default as many as fit a few megabytes (more on a GPU).

    Returns:
        ``sum over dims of weight * score``: a scalar with a gradient for rows, columns and temperature.

    Raises:
        ValueError: If a dim is not between 1 and the embeddings', weights do not match dims, or a tile has no rows.
    """
    width = rows.shape[1]
    dims = list(dims or [width])
    weights = [1.0] * len(dims) if weights is None else list(weights)
    if len(weights) != len(dims):
        raise ValueError(f"Got {len(weights)} weights for {len(dims)} Matryoshka dims; give one for each dim.")
    for dim in dims:
        if not 1 <= dim <= width:
            raise ValueError(f"Got Matryoshka dim {dim} for embeddings of {width}; need dims between 1 and {width}.")
    if tile_rows is not None and tile_rows < 1:
        raise ValueError(f"Got tile_rows {tile_rows}; need at least 1.")
    in_tile, in_block = _TILE_NUMBERS.get(rows.device.type, _TILE_NUMBERS_ELSEWHERE)
    tile_rows = tile_rows or max(1, in_tile // max(1, len(columns)))
    how = _How(tile_rows, min(tile_rows, max(1, in_block // max(1, len(columns)))), torch.is_grad_enabled())
    with torch.autocast(rows.device.type, enabled=False):
        if len(dims) == 1:
            [dim], [weight] = dims, weights
            unit = (unit_rows(rows[:, :dim]), unit_rows(columns[:, :dim]))
            total: Tensor = _RowTiles.apply(*unit, temperature, score, how)  # type: ignore[no-untyped-call]
            return weight * total
        ascending = sorted(zip(dims, weights, strict=True))
        rows, columns = (unit_rows(side[:, : ascending[-1][0]]) for side in (rows, columns))
        nested: Tensor = _NestedRowTiles.apply(rows, columns, temperature, score, ascending, how)  # type: ignore[no-untyped-call]
        return nested


class _How(NamedTuple):
    """Rows of a tile, of a block, and whether there may be a gradient: inside a Function autograd is always off."""

    tile_rows: int
    block_rows: int
    grad_enabled: bool


def _parts(first: int, last: int, size: int) -> Iterator[slice]:
    return (slice(start, min(start + size, last)) for start in range(first, last, size))


class _RowTiles(torch.autograd.Function):
    """One dim: the inner products of unit-length rows and columns are their cosines."""

    @staticmethod
    def forward(  # noqa: PLR0917 - torch passes them by position
        ctx: Any, rows: Tensor, columns: Tensor, temperature: Tensor, score: TileScore, how: _How
    ) -> Tensor:
        needed = how.grad_enabled and any(ctx.needs_input_grad)
        total = rows.new_zeros(())
        d_rows, d_columns = (torch.empty_like(rows), torch.zeros_like(columns)) if needed else (rows, columns)
        room = rows.new_empty(min(how.tile_rows, len(rows)), len(columns))
        for own in _parts(0, len(rows), how.tile_rows):
            tile = torch.mm(rows[own], columns.T, out=room[: own.stop - own.start])
            for block in _parts(own.start, own.stop, how.block_rows):
                total += score(tile[block.start - own.start : block.stop - own.start], block, score.prepare(block))
            if needed:
                torch.mm(tile, columns, out=d_rows[own])
                d_columns.addmm_(tile.T, rows[own])
        if needed:
            # sum of gradient * cosine over a row's columns is the inner product of the row and its gradient
            ctx.save_for_backward(d_rows, d_columns, -torch.sum(rows * d_rows) / temperature)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> Any:
        d_rows, d_columns, d_temperature = ctx.saved_tensors
        return upstream * d_rows, upstream * d_columns, _if(ctx, 2, upstream * d_temperature), None, None


class _NestedRowTiles(torch.autograd.Function):
    """Several dims of rows that have unit length at the last: its cosines are their inner products.

    Those of the others are the products so far, times what the lengths of the truncated rows say.
    """

    @staticmethod
    def forward(  # noqa: PLR0917 - torch passes them by position
        ctx: Any,
        rows: Tensor,
        columns: Tensor,
        temperature: Tensor,
        score: TileScore,
        ascending: Sequence[tuple[int, float]],
        how: _How,
    ) -> Tensor:
        needed = how.grad_enabled and any(ctx.needs_input_grad)
        dims = [dim for dim, _ in ascending]
        shorter = dims[:-1]
        row_scale, column_scale = (
            torch.stack([inverse_lengths(side[:, :dim]) for dim in shorter]) for side in (rows, columns)
        )
        # Slice by slice of the coordinates, each in one piece: products of parts of rows are a third slower
        widths = [last - first for first, last in itertools.pairwise([0, *dims])]
        row_parts, column_parts = (
            [part.contiguous() for part in torch.split(side, widths, dim=1)] for side in (rows, columns)
        )
        d_row_parts = [torch.empty_like(part) for part in row_parts] if needed else []
        d_column_parts = [torch.zeros_like(part) for part in column_parts] if needed else []
        # Sum over the other side of gradient * cosine: what the lengths of the truncated rows get
        row_sums, column_sums = torch.zeros_like(row_scale), torch.zeros_like(column_scale)
        total = rows.new_zeros(())
        room = rows.new_empty(len(dims), min(how.tile_rows, len(rows)), len(columns))
        scratch = rows.new_empty(min(how.block_rows, len(rows)), len(columns))
        for own in _parts(0, len(rows), how.tile_rows):
            blocks = [(block, score.prepare(block)) for block in _parts(own.start, own.stop, how.block_rows)]
            *gradients, products = room[:, : own.stop - own.start]
            gradients.append(products)  # nothing is to be added to the products of the last
            for place, (gradient_tile, (_, weight)) in enumerate(zip(gradients, ascending, strict=True)):
                products.addmm_(row_parts[place][own], column_parts[place].T, beta=1 if place else 0)
                for block, prepared in blocks:
                    here = slice(block.start - own.start, block.stop - own.start)
                    gradient = gradient_tile[here]
                    if place == len(shorter):
                        total += weight * score(gradient, block, prepared)
                        gradient.mul_(weight)
                        continue
                    scale = row_scale[place, block, None]
                    torch.mul(products[here], scale, out=gradient).mul_(column_scale[place])  # cosines, as yet
                    total += weight * score(gradient, block, prepared)
                    if needed:
                        gradient.mul_(column_scale[place]).mul_(weight * scale)  # now towards the inner products
                        of_lengths = torch.mul(products[here], gradient, out=scratch[: len(gradient)])
                        torch.sum(of_lengths, dim=1, out=row_sums[place, block])
                        column_sums[place] += of_lengths.sum(0)
            for place in range(len(dims) - 1, -1, -1) if needed else ():
                tile = gradients[place]
                torch.mm(tile, column_parts[place], out=d_row_parts[place][own])
                d_column_parts[place].addmm_(tile.T, row_parts[place][own])
                if place:
                    gradients[place - 1].add_(tile)  # a slice of the coordinates counts for every dim that has it
        if needed:
            d_rows, d_columns = (torch.cat(parts, dim=1) for parts in (d_row_parts, d_column_parts))
            # as with one dim, summed over the dims; before the lengths take their part
            d_temperature = -torch.sum(rows * d_rows) / temperature
            _take_out_lengths(d_rows, rows, shorter, row_sums * row_scale**2)
            _take_out_lengths(d_columns, columns, shorter, column_sums * column_scale**2)
            ctx.save_for_backward(d_rows, d_columns, d_temperature)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> Any:
        d_rows, d_columns, d_temperature = ctx.saved_tensors
        return upstream * d_rows, upstream * d_columns, _if(ctx, 2, upstream * d_temperature), None, None, None


def _take_out_lengths(gradient: Tensor, side: Tensor, dims: Sequence[int], factors: Tensor) -> None:
    """Subtract what each truncation's length takes out along the truncated vector."""
    for dim, factor in zip(dims, factors, strict=True):
        gradient[:, :dim].addcmul_(side[:, :dim], factor.unsqueeze(1), value=-1)


def _if(ctx: Any, argument: int, gradient: Tensor) -> Tensor | None:
    return gradient if ctx.needs_input_grad[argument] else None
