"""The k best documents of each query, exactly, from a corpus that streams by a tile at a time."""

import contextlib
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

# A key holds a score in its high 32 bits and its document's place among ties in the low 32: integers that sort as
# rankings do. No number has the image of this key; it would be a NaN.
NOTHING = torch.iinfo(torch.int64).min
_LAST_TIE = 0xFFFFFFFF
_TILE_SCORES = 2**22  # scores held at once: 16 MiB


class Nearest(NamedTuple):
    """What :func:`nearest` found.

    Attributes:
        scores: Dot products, best first, float32; ``-inf`` where there are fewer documents.
        rows: Rows in the corpus, int64; ``-1`` where there are fewer documents.
        excluded_scores: Dot product of each excluded pair, in their order.
    """

    scores: Tensor
    rows: Tensor
    excluded_scores: Tensor


def nearest(
    queries: Tensor, tiles: Iterable[Tensor], *, depth: int, excluded: tuple[Tensor, Tensor] | None = None
) -> Nearest:
    """Find the documents with the largest dot products; of those that tie, the ones that come first in the corpus.

    Memory is that of the queries, of one tile and of ``depth`` keys for each query: never queries times corpus.

    Args:
        queries: Embeddings, float32, shape ``(queries, dim)``; the search runs on their device.
        tiles: Embeddings of the corpus in its order, a part at a time, each of shape ``(documents, dim)``.
        depth: Documents to find for each query.
        excluded: Query rows and document rows, int64, both of shape ``(pairs,)``: documents that are not to be found
            for a query.

    Returns:
        Scores and rows, shape ``(queries, depth)``, and the scores of the excluded pairs.

    Raises:
        ValueError: If ``depth`` is below 1, dims differ, a number is not finite, or an excluded row does not exist.

    >>> found = nearest(torch.tensor([[1.0, 0.0]]), [torch.eye(2), torch.tensor([[1.0, 1.0]])], depth=2)
    >>> found.rows, found.scores
    (tensor([[0, 2]]), tensor([[1., 1.]]))
    """
    if depth < 1:
        raise ValueError(f"Got depth {depth}; need at least 1.")
    _check_finite(queries, "queries")
    keys = torch.full((len(queries), depth), NOTHING, device=queries.device)
    worst = torch.full((len(queries), 1), -torch.inf, device=queries.device)  # a query's last key, as a score
    barred = _Excluded(excluded, len(queries), queries.device)
    first = 0
    with full_float32(queries.device):
        for part in tiles:
            tile = part.to(queries.device, torch.float32)
            if tile.ndim != 2 or tile.shape[1] != queries.shape[1]:
                raise ValueError(
                    f"Got documents {tuple(tile.shape)} for queries {tuple(queries.shape)}; need (documents, dim) with "
                    "the same dim. Encode both with the same model."
                )
            _check_finite(tile, f"documents from row {first} on")
            step = max(1, _TILE_SCORES // max(1, len(tile)))
            for start in range(0, len(queries), step):
                some = slice(start, start + step)
                scores = queries[some] @ tile.T
                barred.take_out(scores, start, first)
                _keep_better(keys[some], worst[some], scores, first)
            first += len(tile)
    return Nearest(scores_of(keys), _rows_of(keys), barred.scores_of_all(first))


def _keep_better(keys: Tensor, worst: Tensor, scores: Tensor, first: int) -> None:
    """Write the best of ``keys`` (each row descending) and of a tile's scores into ``keys``, in place.

    Documents come in the order that ties are broken by, so one that ties with a query's last key is never better: few
    of the scores are looked at once the keys are full.
    """
    query, column = _places(scores > worst)
    if not len(query):
        return
    counts = torch.bincount(query, minlength=len(keys))
    gaining = counts.nonzero().squeeze(1)
    starts = counts.cumsum(0) - counts
    place = torch.arange(len(query), device=keys.device) - starts[query]
    candidates = torch.full((len(keys), int(counts.max())), NOTHING, device=keys.device)
    candidates[query, place] = pack(scores[query, column], _LAST_TIE - (first + column))
    best = torch.cat([keys[gaining], candidates[gaining]], dim=1).topk(keys.shape[1]).values
    keys[gaining] = best
    worst[gaining] = scores_of(best[:, -1:])


def _places(mask: Tensor) -> tuple[Tensor, Tensor]:
    """Row and column of what is true, row by row."""
    if mask.device.type == "cpu":  # torch's own search takes ten times as long there
        flat = torch.from_numpy(np.flatnonzero(mask.numpy()))
    else:
        flat = mask.flatten().nonzero().squeeze(1)
    return flat // mask.shape[1], flat % mask.shape[1]


class _Excluded:
    """Pairs that are not to be found, by document, and their scores as they come by."""

    def __init__(self, pairs: tuple[Tensor, Tensor] | None, queries: int, device: torch.device) -> None:
        query, document = pairs or (torch.zeros(0, dtype=torch.int64),) * 2
        if query.shape != document.shape or query.ndim != 1:
            raise ValueError(
                f"Got excluded query rows {tuple(query.shape)} and document rows {tuple(document.shape)}; need one of "
                "each for a pair."
            )
        if len(query) and not 0 <= int(query.min()) <= int(query.max()) < queries:
            raise ValueError(f"Got excluded query rows {query.min()} to {query.max()}; need 0 to {queries - 1}.")
        self._document, self._order = document.to(device).sort(stable=True)
        self._query = query.to(device)[self._order]
        self._scores = torch.full((len(query),), torch.nan, device=device)

    def take_out(self, scores: Tensor, first_query: int, first_document: int) -> None:
        """Keep the scores of the pairs in this tile, and set them to ``-inf`` in it."""
        bounds = torch.tensor([first_document, first_document + scores.shape[1]], device=scores.device)
        start, stop = torch.searchsorted(self._document, bounds).tolist()
        query = self._query[start:stop] - first_query
        inside = ((query >= 0) & (query < len(scores))).nonzero().squeeze(1)
        row, column = query[inside], self._document[start:stop][inside] - first_document
        self._scores[start + inside] = scores[row, column]
        scores[row, column] = -torch.inf

    def scores_of_all(self, documents: int) -> Tensor:
        """Return the scores in the order in which the pairs were given."""
        if len(self._document) and not 0 <= int(self._document[0]) <= int(self._document[-1]) < documents:
            raise ValueError(
                f"Got excluded document rows {self._document[0]} to {self._document[-1]}; need 0 to {documents - 1}."
            )
        return torch.empty_like(self._scores).scatter_(0, self._order, self._scores)


def _check_finite(embeddings: Tensor, what: str) -> None:
    if not embeddings.isfinite().all():
        raise ValueError(f"Got {what} that are not finite. Check the model's weights and its precision.")


# Keys: a score and a place among ties in one integer


def pack(scores: Tensor, ties: Tensor) -> Tensor:
    """Make int64 keys that sort by score, then by tie order (0 to 2**32 - 1); the shapes broadcast."""
    bits = (scores + 0.0).view(torch.int32)  # -0.0 + 0.0 is 0.0: the two must tie
    ordered = bits ^ ((bits >> 31) & 0x7FFFFFFF)  # negative floats sort backwards as integers
    return (ordered.to(torch.int64) << 32) | ties


def scores_of(keys: Tensor) -> Tensor:
    """Return the scores in keys, float32; ``-inf`` for :data:`NOTHING`."""
    ordered = (keys >> 32).to(torch.int32)
    scores = (ordered ^ ((ordered >> 31) & 0x7FFFFFFF)).view(torch.float32)
    return torch.where(keys == NOTHING, -torch.inf, scores)


def _rows_of(keys: Tensor) -> Tensor:
    return torch.where(keys == NOTHING, -1, _LAST_TIE - (keys & _LAST_TIE))


@contextlib.contextmanager
def full_float32(device: torch.device) -> Iterator[None]:
    """Multiply in float32 whatever training uses: bfloat16 and TF32 round cosines 0.980 and 0.981 to one number."""
    backends = torch.backends
    backend = backends.cuda.matmul if device.type == "cuda" else backends.mkldnn.matmul  # type: ignore[attr-defined]
    before = backend.fp32_precision
    backend.fp32_precision = "ieee"
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        backend.fp32_precision = before
