"""Retrieval measured while the corpus streams by: only the k best documents of each query are kept."""

import functools
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_jv5.data.best_keys import (
    NOTHING,
    Carried,
    keep_best,
    keep_exact_best,
    keep_pairs,
    pack,
    scores_of,
    slices,
    ties_of,
)
from lightning_jv5.data.document_pairs import DocumentPairs, pairs_of
from lightning_jv5.data.score_tiles import TILE_DOCUMENTS, TILE_SCORES, full_float32, products
from lightning_jv5.metrics.exact_scores import exact_products, exact_scores, on_grid, slack
from lightning_jv5.metrics.judgements import Judgements
from lightning_jv5.metrics.keys_of_ranks import count_bits, merge_ranks, rescored_order, side_by_side, union_of_ranks
from lightning_jv5.metrics.ranking import parse_measure
from lightning_jv5.metrics.streaming import StreamingMetric
from lightning_jv5.metrics.tie_order import TieOrder
from lightning_jv5.metrics.views import View

DEFAULT_MEASURES = ("ndcg@10", "recall@10", "recall@100", "mrr@10", "map@100", "p@10")

_SPARSE = 16  # so many dot products of a matrix product take the time of a single one by itself
_GATHERED = 2**22  # coordinates of pairs held at once


class StreamingRetrieval(StreamingMetric):
    """nDCG, recall, precision, MRR and MAP over a corpus that is never held: all queries come first, then documents.

    Every rank sees all queries; documents may be split over ranks in any way, and a row that arrives again (a sampler
    that pads, say) is skipped. Documents rank by dot product in float32; ties by id, descending, as in trec_eval.
    In a view these are exact (:mod:`~lightning_jv5.metrics.exact_scores`), so that neither batches nor ranks make a
    difference and documents of equal vectors tie; without one a matrix product rounds them as it may.
    Queries without judgements are left out, and counted in ``unjudged_queries``; a query whose judged documents are
    all irrelevant scores 0.

    In a view of precision ``"rescored"`` the sign bits find as many documents as the largest cut-off, and dot products
    of what was cut put those in order.

    Args:
        judgements: Grade of each judged document row, by query row; 0 and below are irrelevant. Metrics of the same
            data may share them as :class:`Judgements`.
        query_count: Number of queries.
        document_count: Number of documents.
        tie_order: Position of each document's id among all ids sorted ascending; integers, shape
            ``(document_count,)``. By default ids are taken to sort as rows do. Metrics may share a :class:`TieOrder`.
        measures: What :meth:`compute` returns: ``ndcg``, ``recall``, ``p``, ``mrr`` or ``map``, ``@`` and the cut-off.
        view: How embeddings are read; by default they are taken as they are.
        excluded: Document row or rows, by query row, that are not to be found for a query; BEIR so ignores the
            document whose id is the query's. Judgements of them still count in what is ideal, as there.
        candidates: Document rows, by query row, that alone are ranked for a query: reranking. A list may be empty;
            a query without one must have no judgements. Memory is that of the pairs.

    Raises:
        ValueError: If nothing is judged, a row does not exist, a measure is unknown, or a judged query has no list of
            candidates.

    >>> metric = StreamingRetrieval({0: {1: 1}}, query_count=1, document_count=3, measures=["ndcg@10", "mrr@1"])
    >>> metric.update("query", torch.tensor([[1.0, 0.0]]), torch.tensor([0]))
    >>> metric.update("document", torch.eye(2), torch.tensor([2, 1]))
    >>> metric.compute(), metric.is_complete()
    ({'ndcg@10': tensor(0.6309), 'mrr@1': tensor(0.)}, False)
    """

    keys: Tensor
    rescored_keys: Tensor
    document_bits: Tensor
    tie_order: Tensor
    query_embeddings: Tensor
    rescoring_queries: Tensor
    query_seen: Tensor

    def __init__(
        self,
        judgements: Mapping[int, Mapping[int, int]] | Judgements,
        *,
        query_count: int,
        document_count: int,
        tie_order: Tensor | TieOrder | None = None,
        measures: Sequence[str] = DEFAULT_MEASURES,
        view: View | None = None,
        excluded: Mapping[int, int] | Mapping[int, Collection[int]] | None = None,
        candidates: Mapping[int, Sequence[int]] | None = None,
    ) -> None:
        super().__init__(view)
        if not measures:
            raise ValueError(f"Got no measures; need at least one. Leave the argument out for {DEFAULT_MEASURES}.")
        self.query_count, self.document_count = query_count, document_count
        self.measures = {name: parse_measure(name) for name in measures}
        self.depth = max(k for _, k in self.measures.values())
        if not isinstance(judgements, Judgements):
            judgements = Judgements(judgements, query_count=query_count, document_count=document_count)
        if tie_order is None:
            tie_order = torch.arange(document_count)
        if not isinstance(tie_order, TieOrder):
            tie_order = TieOrder(tie_order, document_count=document_count)
        _check_shared(judgements, tie_order, query_count, document_count)
        self._judgements = judgements
        self.unjudged_queries = query_count - len(self._judgements.judged)
        self._reranks = candidates is not None
        self._pairs = self._listed_pairs(excluded, candidates)
        # A sum of distinct powers of two per byte: the set of rows seen, which unlike a count can be merged exactly.
        byte_count = -(-document_count // 8)
        nothing = torch.full((query_count, self._most_found()), NOTHING)
        self.add_state("keys", nothing, dist_reduce_fx=merge_ranks)
        self.add_state("document_bits", torch.zeros(byte_count, dtype=torch.uint8), dist_reduce_fx=union_of_ranks)
        precision = None if view is None else view.precision
        self.rescores, self._is_exact = precision == "rescored", precision in ("float", "int8")
        if self.rescores:  # of each key, the one that the float score makes; in any order
            self.add_state("rescored_keys", nothing.clone(), dist_reduce_fx=side_by_side)
        # Buffers and not states: every rank has them, so there is nothing to communicate.
        self.register_buffer("tie_order", tie_order.places, persistent=False)
        self.register_buffer("query_embeddings", torch.empty(query_count, 0), persistent=False)
        self.register_buffer("rescoring_queries", torch.empty(query_count, 0), persistent=False)
        self.register_buffer("query_seen", torch.zeros(query_count, dtype=torch.bool), persistent=False)
        self._documents_began = False
        self._documents_seen = 0
        self._merged_keys = self.keys
        self._values: dict[str, Tensor] = {}

    def _listed_pairs(
        self,
        excluded: Mapping[int, int] | Mapping[int, Collection[int]] | None,
        candidates: Mapping[int, Sequence[int]] | None,
    ) -> DocumentPairs | None:
        """Return the only pairs that are ranked, or those that are not."""
        if excluded is None and candidates is None:
            return None
        counts = {"query_count": self.query_count, "document_count": self.document_count}
        pairs = pairs_of(excluded or {}, "excluded documents", **counts)
        if candidates is not None:
            missing = [query for query in self._judgements.judged.tolist() if query not in candidates]
            if missing:
                raise ValueError(
                    f"Got no candidates for {len(missing)} judged queries, such as row {missing[0]}; need a list for "
                    "each. Give an empty list to a query that is to find nothing."
                )
            listed = pairs_of(candidates, "candidates", **counts)
            pairs = listed[~torch.isin(listed, pairs)]
        return DocumentPairs(pairs % self.query_count, pairs // self.query_count)

    def _most_found(self) -> int:
        """Number of documents that are ever kept for a query; at least one."""
        longest = self.document_count
        if self._reranks and self._pairs is not None:
            longest = int(torch.bincount(self._pairs.query, minlength=1).max())
        return max(1, min(self.depth, longest))

    def update(self, role: str, embeddings: Tensor, rows: Tensor) -> None:
        """Keep the embeddings of queries, or rank documents for every query.

        Args:
            role: ``"query"`` or ``"document"``.
            embeddings: Embeddings of these texts; shape ``(texts, dim)``.
            rows: Row of each text in its column; int64, shape ``(texts,)``.

        Raises:
            ValueError: If the shapes differ, a number is not finite, or documents come before all queries.
        """
        if role not in ("query", "document"):
            raise ValueError(f"Got role {role!r}; need 'query' or 'document'. Encode the parts of the task as it says.")
        if embeddings.ndim != 2 or rows.shape != embeddings.shape[:1]:
            raise ValueError(
                f"Got embeddings {tuple(embeddings.shape)} and rows {tuple(rows.shape)}; need (texts, dim) and "
                "(texts,). Pool token embeddings first, and pass the row of each text."
            )
        if not len(rows):
            return
        count = self.query_count if role == "query" else self.document_count
        if rows.device.type == "cpu" and (rows.min() < 0 or rows.max() >= count):
            raise ValueError(
                f"Got {role} rows {rows.min()} to {rows.max()}; need 0 to {count - 1}. "
                "Pass positions in the task's column."
            )
        cut, here = self.cut(embeddings), rows.to(self.keys.device)
        self.note_bad_texts(cut)
        if role == "query":
            self._keep_queries(cut, here)
            return
        for part in slices(len(rows), TILE_DOCUMENTS):
            self._rank_documents(cut[part], here[part], rows[part])

    def _keep_queries(self, cut: Tensor, rows: Tensor) -> None:
        if self._documents_began:
            raise ValueError("Got queries after documents; need all queries first. Call reset() before the next pass.")
        embeddings = self._compared(self.query(cut))
        if not self.query_embeddings.shape[1]:
            self.query_embeddings = embeddings.new_zeros(self.query_count, embeddings.shape[1])
            if self.rescores:
                self.rescoring_queries = torch.zeros_like(self.query_embeddings)
        self._check_dim(embeddings)
        self.query_embeddings[rows] = embeddings
        if self.rescores:
            self.rescoring_queries[rows] = on_grid(cut)
        self.query_seen[rows] = True

    def _rank_documents(self, cut: Tensor, rows: Tensor, rows_as_given: Tensor) -> None:
        if not self._documents_began:
            if not self.query_seen.all():
                raise ValueError(
                    f"Got documents after {int(self.query_seen.sum())} of {self.query_count} queries; need all queries "
                    "first, on every rank. Do not shuffle, split over ranks or limit the batches of queries."
                )
            self._documents_began = True
        self._check_dim(cut)
        is_new = self._mark_seen(rows)
        if is_new.device.type == "cpu" and not is_new.all():  # elsewhere choosing would make the host wait
            cut, rows, rows_as_given, is_new = (values[is_new] for values in (cut, rows, rows_as_given, is_new))
        documents = _Documents(cut, self._compared(self.document(cut)), self.tie_order[rows], is_new)
        if self._pairs is None:
            query = column = torch.zeros(0, dtype=torch.int64)
        else:
            place, column = self._pairs.among(rows_as_given.cpu())
            query = self._pairs.query[place]
        with full_float32(cut.device):
            if self._reranks and _SPARSE * len(query) < self.query_count * len(rows):
                self._rank_pairs(documents, query, column)
            else:
                self._rank_tiles(documents, query, column)

    def _compared(self, vectors: Tensor) -> Tensor:
        return on_grid(vectors) if self._is_exact else vectors

    def _rank_tiles(self, documents: "_Documents", query: Tensor, column: Tensor) -> None:
        """Rank documents for all queries; the pairs are the only ones to rank, or those that are not ranked."""
        for tile in slices(self.query_count, TILE_SCORES // max(1, len(documents.cut))):
            queries, stored = self.query_embeddings[tile], documents.stored
            # On the CPU few pairs are worth a second look; elsewhere choosing them would make the host wait
            looks_twice = self._is_exact and queries.device.type == "cpu"
            scores = (
                exact_products(queries, stored) if self._is_exact and not looks_twice else products(queries, stored)
            )
            if self._pairs is not None:
                inside = (query >= tile.start) & (query < tile.stop)
                listed = (query[inside] - tile.start).to(scores.device), column[inside].to(scores.device)
                if self._reranks:
                    scores = torch.full_like(scores, -torch.inf).index_put_(listed, scores[listed])
                else:
                    scores[listed] = -torch.inf
            if scores.device.type != "cpu":
                scores.masked_fill_(~documents.is_new, -torch.inf)
            if looks_twice:
                exact = functools.partial(exact_scores, queries, stored)
                keep_exact_best(self.keys[tile], scores, documents.ties, slack(stored.shape[1]), exact)
            else:
                keep_best(self.keys[tile], scores, documents.ties, self._carried(tile, documents))

    def _rank_pairs(self, documents: "_Documents", query: Tensor, column: Tensor) -> None:
        """Rank documents for the queries that list them, pair by pair."""
        order = query.argsort(stable=True)
        query, column = query[order], column[order]
        device, carried = documents.cut.device, self._carried(slice(None), documents)
        for some in slices(len(query), _GATHERED // documents.cut.shape[1]):
            of_query, of_document = query[some].to(device), column[some].to(device)
            if self._is_exact:
                scores = exact_scores(self.query_embeddings, documents.stored, of_query, of_document)
            else:
                scores = (self.query_embeddings[of_query] * documents.stored[of_document]).sum(1)
            keys = pack(scores, documents.ties[of_document])
            keys.masked_fill_(~documents.is_new[of_document], NOTHING)
            keep_pairs(self.keys, query[some], column[some], keys, carried)

    def _carried(self, tile: slice, documents: "_Documents") -> Carried | None:
        """Where the documents that are kept for these queries get the keys that floats make of them."""
        if not self.rescores:
            return None
        queries, cut = self.rescoring_queries[tile], on_grid(documents.cut)

        def rescore(query: Tensor, column: Tensor) -> Tensor:
            return pack(exact_scores(queries, cut, query, column), documents.ties[column])

        return Carried(self.rescored_keys[tile], rescore)

    def _mark_seen(self, rows: Tensor) -> Tensor:
        """Add rows to the set of those seen; True for each that is new, at its first place in the batch."""
        ordered, order = rows.sort(stable=True)
        is_new = torch.empty_like(rows, dtype=torch.bool)
        is_new[order] = F.pad(ordered[1:] != ordered[:-1], (1, 0), value=True)
        byte, bit = rows // 8, (rows % 8).to(torch.uint8)
        is_new &= (self.document_bits[byte] >> bit) & 1 == 0
        self.document_bits.index_add_(0, byte, is_new.to(torch.uint8) << bit)
        return is_new

    def _check_dim(self, embeddings: Tensor) -> None:
        if embeddings.shape[1] != self.query_embeddings.shape[1]:
            raise ValueError(
                f"Got embeddings of {embeddings.shape[1]} coordinates after queries of "
                f"{self.query_embeddings.shape[1]}; need the same. Encode every text with the same model and view."
            )

    def compute(self) -> dict[str, Tensor]:
        """Return the mean of each measure over the judged queries, by its name: scalars in [0, 1].

        Raises:
            ValueError: If an embedding was not finite.
        """
        self.refuse_bad_texts()
        self._merged_keys = rescored_order(self.keys, self.rescored_keys) if self.rescores else self.keys.clone()
        self._documents_seen = count_bits(self.document_bits)
        self._values = self._judgements.measure(self._rows_of(self._merged_keys), self.measures)
        return {name: values.mean().to(self.keys.device, torch.float32) for name, values in self._values.items()}

    def per_query(self) -> dict[str, Tensor]:
        """Return each measure of each query, by its name. Merges over ranks, so every rank asks.

        Returns:
            float64, on the CPU, shape ``(query_count,)``; NaN for a query without judgements.

        >>> metric = StreamingRetrieval({1: {0: 1}}, query_count=2, document_count=1, measures=["p@2"])
        >>> metric.update("query", torch.eye(2), torch.tensor([0, 1]))
        >>> metric.update("document", torch.ones(1, 2), torch.tensor([0]))
        >>> metric.per_query()
        {'p@2': tensor([   nan, 0.5000], dtype=torch.float64)}
        """
        self.compute()
        judged, unknown = self._judgements.judged, torch.full((self.query_count,), torch.nan, dtype=torch.float64)
        return {name: unknown.index_copy(0, judged, values) for name, values in self._values.items()}

    @property
    def documents_seen(self) -> int:
        """Number of different documents that arrived on any rank. Merges over ranks, so every rank asks."""
        self.compute()
        return self._documents_seen

    def is_complete(self) -> bool:
        """Whether all documents arrived on some rank. Merges over ranks, so every rank asks."""
        return self.documents_seen == self.document_count

    def rankings(self) -> tuple[Tensor, Tensor]:
        """Return what ranks first for each query, best first. Merges over ranks, so every rank asks.

        Returns:
            Dot products, float32, and document rows, int64, both of shape ``(query_count, depth)``, where depth is the
            largest cut-off; ``-inf`` and ``-1`` where there are fewer documents. Those of a view that rescores are of
            floats.
        """
        self.compute()
        keys = self._merged_keys.to(self.keys.device)
        keys = F.pad(keys, (0, self.depth - keys.shape[1]), value=NOTHING)
        return scores_of(keys), self._rows_of(keys)

    def reset(self) -> None:
        """Forget all texts, for the next pass."""
        super().reset()
        self.query_embeddings = self.keys.new_empty(self.query_count, 0, dtype=torch.float32)
        self.rescoring_queries = self.query_embeddings.clone()
        self.query_seen = torch.zeros_like(self.query_seen)
        self._documents_began = False

    def _rows_of(self, keys: Tensor) -> Tensor:
        row_of_tie = torch.empty(self.document_count, dtype=torch.int64, device=keys.device)
        row_of_tie[self.tie_order.long()] = torch.arange(self.document_count, device=keys.device)
        ties = ties_of(keys)
        return torch.where(ties < 0, -1, row_of_tie[ties.clamp(min=0)])


class _Documents(NamedTuple):
    """A tile: what was cut and what is stored of it, the place among ties, and whether a row is no repeat."""

    cut: Tensor
    stored: Tensor
    ties: Tensor
    is_new: Tensor


def _check_shared(judgements: Judgements, tie_order: TieOrder, query_count: int, document_count: int) -> None:
    if (judgements.query_count, judgements.document_count) != (query_count, document_count):
        raise ValueError(
            f"Got judgements of {judgements.query_count} queries and {judgements.document_count} documents; need "
            f"{query_count} and {document_count}. Share judgements among metrics of the same data alone."
        )
    if len(tie_order.places) != document_count:
        raise ValueError(
            f"Got a tie order of {len(tie_order.places)} documents; need one of {document_count}. "
            "Share it among metrics of the same data alone."
        )
