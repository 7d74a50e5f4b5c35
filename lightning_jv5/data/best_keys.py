"""The best documents of each query as integers that sort like rankings, kept while a corpus streams by."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

# A key holds a score in its high 32 bits and its document's place among ties in the low 32: integers that sort as
# rankings do. No number has the image of this key; it would be a NaN.
NOTHING = torch.iinfo(torch.int64).min
LAST_TIE = 0xFFFFFFFF
_RUN = 32  # scores next to each other that are looked at by their largest
FEW = 0.25  # of a tile's runs of which more reach the last keys, each query's best are found first


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
    if keys.device.type != "cpu":
        keep_best_of_all(keys, scores, ties, carried)
        return
    query, column = _reaching(keys, scores)
    keep_pairs(keys, query, column, pack(scores[query, column], ties[column]), carried)


def keep_exact_best(
    keys: Tensor, scores: Tensor, ties: Tensor, slack: float, exact: Callable[[Tensor, Tensor], Tensor]
) -> None:
    """Do what :func:`keep_best` does on the CPU, by exact scores of which those of the tile are only near.

    The keys are of exact scores alone, and none of the best is missed, however many tie.

    Args:
        keys: As for :func:`keep_best`, of exact scores.
        scores: As there.
        ties: As there.
        slack: How far a score may be from the exact one.
        exact: Takes rows of the keys and columns of the tile, both of shape ``(pairs,)``, and returns exact scores,
            float32.

    >>> keys, near = torch.full((1, 1), NOTHING), torch.tensor([[0.1, 0.501, 0.499]])
    >>> keep_exact_best(keys, near, torch.arange(3), 0.01, lambda query, column: torch.full((len(query),), 0.5))
    >>> scores_of(keys), ties_of(keys)
    (tensor([[0.5000]]), tensor([[2]]))
    """
    query, column = _reaching(keys, scores, slack)
    keep_pairs(keys, query, column, pack(exact(query, column), ties[column]))


def _reaching(keys: Tensor, scores: Tensor, slack: float = 0.0) -> tuple[Tensor, Tensor]:
    """Find the rows and columns of the scores that may gain a place in the keys, in their order.

    The largest of a run of scores is asked first, which takes a third of the time where few runs have one.
    """
    depth, count = keys.shape[1], scores.shape[1]
    floor = (scores_of(keys[:, -1:]) - slack).clamp_(min=torch.finfo(scores.dtype).min)
    length = _RUN if count % _RUN == 0 else count
    runs = scores.T.view(-1, length, len(scores))  # documents come first, as products() lays them
    largest = runs.amax(1)
    if np.count_nonzero((largest >= floor.T).numpy()) > FEW * largest.numel() and count > depth:  # the first tiles
        # Of the last of the best and of one that it may not be, each may be off
        floor = floor.maximum(scores.topk(depth).values[:, -1:] - 2 * slack)
    query, run = _nonzero((largest >= floor.T).T)
    found, place = _nonzero(runs[run, :, query] >= floor.index_select(0, query))
    return query.index_select(0, found), run.index_select(0, found) * length + place


def _nonzero(matrix: Tensor) -> tuple[Tensor, Tensor]:
    place = torch.from_numpy(np.flatnonzero(matrix.numpy()))  # torch's own search takes ten times as long
    row = place // matrix.shape[1]
    return row, place - row * matrix.shape[1]


def keep_best_of_all(keys: Tensor, scores: Tensor, ties: Tensor, carried: Carried | None = None) -> None:
    """Do what :func:`keep_best` does by sorting all, without asking the device which scores gain."""
    candidates = pack(scores, ties).masked_fill_(scores == -torch.inf, NOTHING)
    _merge(keys, torch.arange(len(keys), device=keys.device), candidates, None, carried)


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
        better = new > keys[:, -1].index_select(0, query)
        query, column, new = query[better], column[better], new[better]
    if not len(query):
        return
    gaining, row, counts = torch.unique_consecutive(query, return_inverse=True, return_counts=True)
    place = torch.arange(len(query), device=query.device) - (counts.cumsum(0) - counts)[row]
    shape = len(gaining), int(counts.max())
    where = (row * shape[1] + place).to(keys.device)
    candidates, columns = keys.new_full(shape, NOTHING), None
    candidates.view(-1).index_copy_(0, where, new)
    if carried is not None:
        columns = keys.new_zeros(shape)
        columns.view(-1).index_copy_(0, where, column.to(keys.device))
    _merge(keys, gaining.to(keys.device), candidates, columns, carried)


def _merge(keys: Tensor, some: Tensor, candidates: Tensor, columns: Tensor | None, carried: Carried | None) -> None:
    """Merge candidates, shape ``(some, most)``, into some rows of keys; ``columns`` are theirs in the tile."""
    depth = keys.shape[1]
    best, place = torch.cat([keys.index_select(0, some), candidates], dim=1).topk(depth)
    keys.index_copy_(0, some, best)
    if carried is None:
        return
    values = carried.values.index_select(0, some).gather(1, place.clamp(max=depth - 1))
    row, rank = ((place >= depth) & (best != NOTHING)).nonzero().unbind(1)
    column = place[row, rank] - depth
    values[row, rank] = carried.compute(some[row], column if columns is None else columns[row, column])
    carried.values.index_copy_(0, some, values)


def slices(count: int, most: int) -> Iterator[slice]:
    """Cut ``count`` things into runs of at most ``most``, but at least one.

    >>> list(slices(3, 2))
    [slice(0, 2, None), slice(2, 3, None)]
    """
    for start in range(0, count, max(1, most)):
        yield slice(start, min(start + max(1, most), count))


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
