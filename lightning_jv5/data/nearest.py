"""The k best documents of each query, exactly, from a corpus that streams by a tile at a time."""

import itertools
from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_jv5.data.best_keys import LAST_TIE, NOTHING, keep_best, scores_of, ties_of
from lightning_jv5.data.document_pairs import DocumentPairs
from lightning_jv5.data.score_tiles import TILE_DOCUMENTS, TILE_SCORES, full_float32, products

_NEVER = torch.iinfo(torch.int64).max
_WHAT_TO_CHECK = "Check the model's weights and its precision."


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
    if not queries.isfinite().all():
        raise ValueError(f"Got queries that are not finite. {_WHAT_TO_CHECK}")
    keys = torch.full((len(queries), depth), NOTHING, device=queries.device)
    barred = _Excluded(excluded, len(queries), queries.device)
    first_bad = torch.tensor(_NEVER, device=queries.device)
    first = 0
    with full_float32(queries.device):
        for part in itertools.chain.from_iterable(torch.split(tile, TILE_DOCUMENTS) for tile in tiles):
            tile = part.to(queries.device, torch.float32)
            if tile.ndim != 2 or tile.shape[1] != queries.shape[1]:
                raise ValueError(
                    f"Got documents {tuple(tile.shape)} for queries {tuple(queries.shape)}; need (documents, dim) with "
                    "the same dim. Encode both with the same model."
                )
            if not len(tile):
                continue
            finite = torch.stack(tile.aminmax()).isfinite().all()  # 20 times faster than asking every number
            first_bad = torch.where(finite, _NEVER, first).minimum(first_bad)
            if tile.device.type == "cpu":  # elsewhere looking would make the host wait in every tile
                _refuse_bad_documents(first_bad)
            ties = torch.arange(LAST_TIE - first, LAST_TIE - first - len(tile), -1, device=tile.device)
            step = max(1, TILE_SCORES // len(tile))
            for start in range(0, len(queries), step):
                some = slice(start, start + step)
                scores = products(queries[some], tile)
                barred.take_out(scores, start, first)
                keep_best(keys[some], scores, ties)
            first += len(tile)
    _refuse_bad_documents(first_bad)
    ties = ties_of(keys)
    return Nearest(scores_of(keys), torch.where(ties < 0, -1, LAST_TIE - ties), barred.scores_of_all(first))


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
        self._pairs = DocumentPairs(query, document)
        self._scores = torch.full((len(query),), torch.nan, device=device)

    def take_out(self, scores: Tensor, first_query: int, first_document: int) -> None:
        """Keep the scores of the pairs in this tile, and set them to ``-inf`` in it."""
        bounds = torch.tensor([first_document, first_document + scores.shape[1]])
        start, stop = torch.searchsorted(self._pairs.document, bounds).tolist()
        if start == stop:
            return
        query = self._pairs.query[start:stop] - first_query
        inside = ((query >= 0) & (query < len(scores))).nonzero().squeeze(1)
        column = self._pairs.document[start:stop][inside] - first_document
        where = query[inside].to(scores.device), column.to(scores.device)
        self._scores[(start + inside).to(scores.device)] = scores[where]
        scores[where] = -torch.inf

    def scores_of_all(self, documents: int) -> Tensor:
        """Return the scores in the order in which the pairs were given."""
        rows = self._pairs.document
        if len(rows) and not 0 <= int(rows[0]) <= int(rows[-1]) < documents:
            raise ValueError(f"Got excluded document rows {rows[0]} to {rows[-1]}; need 0 to {documents - 1}.")
        return torch.empty_like(self._scores).scatter_(0, self._pairs.order.to(self._scores.device), self._scores)


def _refuse_bad_documents(first_bad: Tensor) -> None:
    if first_bad != _NEVER:
        raise ValueError(f"Got documents from row {int(first_bad)} on that are not finite. {_WHAT_TO_CHECK}")
