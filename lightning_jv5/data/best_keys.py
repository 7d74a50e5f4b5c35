"""The best documents of each query as integers that sort like rankings, kept while a corpus streams by."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

# A key holds a score in its high 32 bits and its document's place among ties in the low 32: integers that sort as
# rankings do. No number has the image of this key; it would be a NaN.
NOTHING = torch.iinfo(torch.int64).min
LAST_TIE = 0xFFFFFFFF
_FEW = 0.25  # the share of a tile up to which sorting what gains is cheaper than sorting all


class Carried(NamedTuple):
    """One more number for each key that is kept, computed for those alone that were.

    Attributes:
        values: int64, of the shape of the keys; written in place, with them.
        compute: Takes rows of the keys and columns of the tile, both of shape ``(pairs,)``, and returns their values.
    """

    values: Tensor
    compute: Callable[[Tensor, Tensor], Tensor]


def keep_best(keys: Tensor, scores: Tensor, ties: Tensor, carried: Carried | None = None) -> None:
    """Write the best of ``keys`` and of a tile's scores into ``keys``, in place.

    On the CPU few scores are looked at once the keys are full: those that reach their query's last key. Elsewhere all
    are sorted, since choosing some would make the host wait for the device.

    Args:
        keys: Of :func:`pack`, each row descending, :data:`NOTHING` at its end; shape ``(queries, depth)``.
        scores: float32, shape ``(queries, documents)``; ``-inf`` for what is not to be found.
        ties: Place of each document among those that tie, higher first; shape ``(documents,)``.
        carried: What to keep beside the keys.

    >>> keys = torch.full((1, 2), NOTHING)
    >>> keep_best(keys, torch.tensor([[0.5, -torch.inf, 0.7, 0.5]]), torch.tensor([0, 1, 2, 3]))
    >>> scores_of(keys), ties_of(keys)
    (tensor([[0.7000, 0.5000]]), tensor([[2, 3]]))
    """
    if keys.device.type == "cpu":
        reaches = scores >= scores_of(keys[:, -1:]).clamp_(min=torch.finfo(scores.dtype).min)
        flat = np.flatnonzero(reaches.numpy())  # torch's own search takes ten times as long
        if len(flat) <= _FEW * scores.numel():
            place = torch.from_numpy(flat)
            query = place // scores.shape[1]
            column = place - query * scores.shape[1]
            keep_pairs(keys, query, column, pack(scores.flatten()[place], ties[column]), carried)
            return
    candidates = pack(scores, ties).masked_fill_(scores == -torch.inf, NOTHING)
    _merge(keys, slice(None), candidates, None, carried)


def keep_pairs(keys: Tensor, query: Tensor, column: Tensor, new: Tensor, carried: Carried | None = None) -> None:
    """Write the best of ``keys`` and of the keys of some pairs into ``keys``, in place.

    Args:
        keys: As for :func:`keep_best`.
        query: Row in ``keys`` of each pair, ascending; on the CPU or on the device of the keys.
        column: What ``carried`` calls the document of each pair; where ``query`` is.
        new: Key of each pair; shape ``(pairs,)``.
        carried: What to keep beside the keys.

    >>> keys = torch.full((2, 1), NOTHING)
    >>> pairs = torch.tensor([0, 0, 1]), torch.tensor([4, 5, 4])
    >>> keep_pairs(keys, *pairs, pack(torch.tensor([0.1, 0.2, 0.3]), pairs[1]))
    >>> ties_of(keys).flatten()
    tensor([5, 4])
    """
    if keys.device.type == "cpu":
        better = new > keys[:, -1][query]
        query, column, new = query[better], column[better], new[better]
    if not len(query):
        return
    gaining, row, counts = torch.unique_consecutive(query, return_inverse=True, return_counts=True)
    place = torch.arange(len(query), device=query.device) - (counts.cumsum(0) - counts)[row]
    shape, where = (len(gaining), int(counts.max())), (row.to(keys.device), place.to(keys.device))
    candidates, columns = keys.new_full(shape, NOTHING), None
    candidates[where] = new
    if carried is not None:
        columns = keys.new_zeros(shape)
        columns[where] = column.to(keys.device)
    _merge(keys, gaining.to(keys.device), candidates, columns, carried)


def _merge(
    keys: Tensor, some: Tensor | slice, candidates: Tensor, columns: Tensor | None, carried: Carried | None
) -> None:
    """Merge candidates, shape ``(some, most)``, into some rows of keys; ``columns`` are theirs in the tile."""
    depth = keys.shape[1]
    best, place = torch.cat([keys[some], candidates], dim=1).topk(depth)
    keys[some] = best
    if carried is None:
        return
    values = carried.values[some].gather(1, place.clamp(max=depth - 1))
    row, rank = ((place >= depth) & (best != NOTHING)).nonzero().unbind(1)
    column = place[row, rank] - depth
    query = torch.arange(len(keys), device=keys.device)[some][row]
    values[row, rank] = carried.compute(query, column if columns is None else columns[row, column])
    carried.values[some] = values


def pack(scores: Tensor, ties: Tensor) -> Tensor:
    """Make int64 keys that sort by score, then by tie order (0 to 2**32 - 1); the shapes broadcast.

    >>> pack(torch.tensor([0.5, 0.5]), torch.tensor([3, 4])).diff()
    tensor([1])
    """
    bits = (scores + 0.0).view(torch.int32)  # -0.0 + 0.0 is 0.0: the two must tie
    ordered = bits ^ ((bits >> 31) & 0x7FFFFFFF)  # negative floats sort backwards as integers
    return (ordered.to(torch.int64) << 32) | ties


def scores_of(keys: Tensor) -> Tensor:
    """Return the scores in keys, float32; ``-inf`` for :data:`NOTHING`.

    >>> scores_of(pack(torch.tensor([-0.5]), torch.tensor([7])))
    tensor([-0.5000])
    """
    ordered = (keys >> 32).to(torch.int32)
    scores = (ordered ^ ((ordered >> 31) & 0x7FFFFFFF)).view(torch.float32)
    return torch.where(keys == NOTHING, -torch.inf, scores)


def ties_of(keys: Tensor) -> Tensor:
    """Return the tie order in keys, int64; -1 for :data:`NOTHING`.

    >>> ties_of(torch.cat([pack(torch.tensor([-0.5]), torch.tensor([7])), torch.tensor([NOTHING])]))
    tensor([ 7, -1])
    """
    return torch.where(keys == NOTHING, -1, keys & LAST_TIE)
