"""The documents of a corpus as one view stores them, and the search among them."""

import time
from typing import NamedTuple

from torch import Tensor

from lightning_jv5.data.nearest import nearest
from lightning_jv5.data.packed_codes import hamming, nearest_codes, pack_signs
from lightning_jv5.metrics.views import View

RESCORED = 4  # times as many documents as are wanted are found by bits, then put in order by floats


class Found(NamedTuple):
    """What a query found.

    Attributes:
        rows: Rows in the corpus, best first; of those that tie the one that comes first.
        scores: Cosines of what was compared: floats, int8 codes, or signs as +1 and -1; same length.
        seconds: Duration of the search, without the encoding of the query.
    """

    rows: list[int]
    scores: list[float]
    seconds: float


class ViewIndex:
    """Search a corpus in one view: exactly, one query at a time, on the CPU.

    Sign bits are searched packed, as they would be stored; int8 codes and the signs of the asymmetric precision are
    held, and compared, as floats.

    Args:
        view: Dims and precision.
        documents: Embeddings of the corpus; shape ``(documents, width)``.

    Raises:
        ValueError: If there are no documents, or they have fewer dims than the view.

    >>> import torch
    >>> index = ViewIndex(View(precision="binary"), torch.tensor([[0.6, 0.8], [0.6, -0.8]]))
    >>> index.search(torch.tensor([[1.0, -0.1]]), depth=1).rows
    [1]
    """

    def __init__(self, view: View, documents: Tensor) -> None:
        if not len(documents):
            raise ValueError("Got a corpus without documents; need at least one to search.")
        cut = view.cut(documents)
        self.view, self.dim, self.count = view, cut.shape[1], len(cut)
        self.bytes_per_vector = view.bytes_per_vector(documents.shape[1])
        self._codes = pack_signs(cut) if view.precision in ("binary", "rescored") else None
        self._documents = None if view.precision == "binary" else cut
        if view.precision in ("int8", "asymmetric"):
            self._documents = view.document(cut)

    def search(self, query: Tensor, depth: int) -> Found:
        """Find the best documents.

        Args:
            query: A whole embedding; shape ``(1, width)``.
            depth: How many; fewer where there are not as many.
        """
        cut, depth = self._cut(query), min(depth, self.count)
        start = time.perf_counter()
        if self._codes is None:
            found = nearest(self.view.query(cut), [self._floats], depth=depth)
            rows, scores = found.rows[0], self._cosines(found.scores[0], cut)
        elif self.view.precision == "binary":
            near = nearest_codes(pack_signs(cut), [self._codes], dim=self.dim, depth=depth)
            rows, scores = near.rows[0], 1 - 2 * near.distances[0] / self.dim
        else:
            rows, scores = self._rescored(cut, depth)
            rows, scores = rows[:depth], scores[:depth]
        return Found(rows.tolist(), scores.tolist(), time.perf_counter() - start)

    def ranks(self, query: Tensor, rows: list[int], found: Found) -> list[int]:
        """Tell at which place of the whole ranking some documents stand, counted from 1.

        Args:
            query: A whole embedding; shape ``(1, width)``.
            rows: The documents.
            found: What :meth:`search` found for the query.
        """
        cut, places = self._cut(query), {row: place for place, row in enumerate(found.rows, start=1)}
        if self._codes is None:
            scores = (self.view.query(cut) @ self._floats.T)[0]
        else:
            scores = -hamming(pack_signs(cut), self._codes, dim=self.dim)[0].float()
        if self.view.precision == "rescored":
            candidates, _ = self._rescored(cut, len(found.rows))
            places |= {row: place for place, row in enumerate(candidates.tolist(), start=1)}
        ranks = []
        for row in rows:
            before = int((scores > scores[row]).sum() + (scores[:row] == scores[row]).sum())
            # One that was not found stands after those that were, however another product rounds
            ranks.append(places.get(row) or max(before, len(places)) + 1)
        return ranks

    @property
    def _floats(self) -> Tensor:
        assert self._documents is not None
        return self._documents

    def _cut(self, query: Tensor) -> Tensor:
        return View(dim=self.dim).cut(query)

    def _cosines(self, products: Tensor, cut: Tensor) -> Tensor:
        if self.view.precision != "asymmetric":  # of unit length already
            return products
        return products / float(self.view.query(cut).norm() * self.dim**0.5)

    def _rescored(self, cut: Tensor, depth: int) -> tuple[Tensor, Tensor]:
        assert self._codes is not None
        count = min(RESCORED * depth, self.count)
        rows = nearest_codes(pack_signs(cut), [self._codes], dim=self.dim, depth=count).rows[0].sort().values
        scores, order = (self._floats[rows] @ cut[0]).sort(descending=True, stable=True)
        return rows[order], scores
