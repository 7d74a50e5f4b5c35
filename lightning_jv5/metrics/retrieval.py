"""Retrieval measured while the corpus streams by: only the k best documents of each query are kept."""

import functools
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_jv5.data.nearest import NOTHING, full_float32, pack, scores_of
from lightning_jv5.metrics.ranking import parse_measure
from lightning_jv5.metrics.streaming import StreamingMetric
from lightning_jv5.metrics.views import View

DEFAULT_MEASURES = ("ndcg@10", "recall@10", "recall@100", "mrr@10", "map@100")

_TILE_SCORES = 2**22  # scores held at once: 16 MiB, and twice that for their keys


class StreamingRetrieval(StreamingMetric):
    """nDCG, recall, MRR and MAP over a corpus that is never held: all queries come first, then the documents.

    Every rank sees all queries; documents may be split over ranks in any way, and a row that arrives again (a sampler
    that pads, say) is skipped. Documents rank by dot product in float32; ties by id, descending, as in trec_eval.
    Queries without judgements are left out, and counted in ``unjudged_queries``; a query whose judged documents are
    all irrelevant scores 0.

    Args:
        judgements: Grade of each judged document row, by query row; 0 and below are irrelevant.
        query_count: Number of queries.
        document_count: Number of documents.
        tie_order: Position of each document's id among all ids sorted ascending; integers, shape
            ``(document_count,)``. By default ids are taken to sort as rows do.
        measures: What :meth:`compute` returns: ``ndcg``, ``recall``, ``mrr`` or ``map``, ``@`` and the cut-off.
        view: How embeddings are read; by default they are taken as they are.

    Raises:
        ValueError: If nothing is judged, a row does not exist, or a measure is unknown.

    >>> metric = StreamingRetrieval({0: {1: 1}}, query_count=1, document_count=3, measures=["ndcg@10", "mrr@1"])
    >>> metric.update("query", torch.tensor([[1.0, 0.0]]), torch.tensor([0]))
    >>> metric.update("document", torch.eye(2), torch.tensor([2, 1]))
    >>> metric.compute(), metric.is_complete()
    ({'ndcg@10': tensor(0.6309), 'mrr@1': tensor(0.)}, False)
    """

    keys: Tensor
    document_bits: Tensor
    tie_order: Tensor
    query_embeddings: Tensor
    query_seen: Tensor

    def __init__(
        self,
        judgements: Mapping[int, Mapping[int, int]],
        *,
        query_count: int,
        document_count: int,
        tie_order: Tensor | None = None,
        measures: Sequence[str] = DEFAULT_MEASURES,
        view: View | None = None,
    ) -> None:
        super().__init__(view)
        if not measures:
            raise ValueError(f"Got no measures; need at least one. Leave the argument out for {DEFAULT_MEASURES}.")
        self.query_count, self.document_count = query_count, document_count
        self.measures = {name: parse_measure(name) for name in measures}
        self.depth = max(k for _, k in self.measures.values())
        self._store_judgements(judgements)
        # A sum of distinct powers of two per byte: the set of rows seen, which unlike a count can be merged exactly.
        byte_count = -(-document_count // 8)
        self.add_state("keys", torch.full((query_count, self.depth), NOTHING), dist_reduce_fx=_merge_ranks)
        self.add_state("document_bits", torch.zeros(byte_count, dtype=torch.uint8), dist_reduce_fx=_union_of_ranks)
        # Buffers and not states: every rank has them, so there is nothing to communicate.
        self.register_buffer("tie_order", _checked_tie_order(tie_order, document_count), persistent=False)
        self.register_buffer("query_embeddings", torch.empty(query_count, 0), persistent=False)
        self.register_buffer("query_seen", torch.zeros(query_count, dtype=torch.bool), persistent=False)
        self._documents_began = False
        self._documents_seen = 0
        self._merged_keys = self.keys

    def _store_judgements(self, judgements: Mapping[int, Mapping[int, int]]) -> None:
        # On the CPU for good: compute() alone reads them, in float64, which some devices lack.
        judged = [(query, row, grade) for query, grades in judgements.items() for row, grade in grades.items()]
        if not judged:
            raise ValueError("Got no judgements; need the grade of at least one document. Check the task's data.")
        query, document, grade = torch.tensor(judged, dtype=torch.int64).T
        for what, row, count in (("query", query, self.query_count), ("document", document, self.document_count)):
            if row.min() < 0 or row.max() >= count:
                raise ValueError(
                    f"Got judgements of {what} rows {row.min()} to {row.max()}; need 0 to {count - 1}. "
                    f"Leave out judgements of {what} texts that are not there, or add the texts."
                )
        gains = grade.clamp(min=0).to(torch.float64)
        order = (query * self.document_count + document).argsort()
        self._judged_pairs = (query * self.document_count + document)[order]
        self._judged_gains = gains[order]

        best_first = gains.argsort(descending=True, stable=True)
        best_first = best_first[query[best_first].argsort(stable=True)]  # by query, then by gain
        counts = torch.bincount(query, minlength=self.query_count)
        rank = torch.arange(len(query)) - (counts.cumsum(0) - counts)[query[best_first]]
        self._ideal_gains = torch.zeros(self.query_count, int(counts.max()), dtype=torch.float64)
        self._ideal_gains[query[best_first], rank] = gains[best_first]
        self._judged_queries = counts > 0
        self.unjudged_queries = int((counts == 0).sum())

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
        cut, rows = self.cut(embeddings), rows.to(self.keys.device)
        self.note_bad_texts(cut)
        if role == "query":
            self._keep_queries(self.query(cut), rows)
        else:
            self._rank_documents(self.document(cut), rows)

    def _keep_queries(self, embeddings: Tensor, rows: Tensor) -> None:
        if self._documents_began:
            raise ValueError("Got queries after documents; need all queries first. Call reset() before the next pass.")
        if not self.query_embeddings.shape[1]:
            self.query_embeddings = embeddings.new_zeros(self.query_count, embeddings.shape[1])
        self._check_dim(embeddings)
        self.query_embeddings[rows] = embeddings
        self.query_seen[rows] = True

    def _rank_documents(self, embeddings: Tensor, rows: Tensor) -> None:
        if not self._documents_began:
            if not self.query_seen.all():
                raise ValueError(
                    f"Got documents after {int(self.query_seen.sum())} of {self.query_count} queries; need all queries "
                    "first, on every rank. Do not shuffle, split over ranks or limit the batches of queries."
                )
            self._documents_began = True
        self._check_dim(embeddings)
        is_new = self._mark_seen(rows)
        ties = self.tie_order[rows]
        tile_rows = max(1, _TILE_SCORES // len(rows))
        with full_float32(embeddings.device):
            for start in range(0, self.query_count, tile_rows):
                tile = slice(start, start + tile_rows)
                scores = self.query_embeddings[tile] @ embeddings.T
                self._merge_tile(self.keys[tile], pack(scores, ties).masked_fill_(~is_new, NOTHING))

    def _merge_tile(self, keys: Tensor, candidates: Tensor) -> None:
        """Write the best of ``keys`` (a view of the state, each row descending) and ``candidates`` into ``keys``."""
        if keys.device.type != "cpu":  # choosing rows would make the host wait for the device
            keys.copy_(torch.cat([keys, candidates], dim=1).topk(self.depth).values)
            return
        gaining = (candidates > keys[:, -1:]).any(1).nonzero().squeeze(1)
        if len(gaining):
            keys[gaining] = torch.cat([keys[gaining], candidates[gaining]], dim=1).topk(self.depth).values

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
        self._merged_keys = self.keys.clone()
        self._documents_seen = _count_bits(self.document_bits)
        rows = self._rows_of(self._merged_keys).cpu()[self._judged_queries]
        gains = self._gains_of(self._judged_queries.nonzero(), rows)
        ideal_gains = self._ideal_gains[self._judged_queries]
        means = {name: measure(gains, ideal_gains, k).mean() for name, (measure, k) in self.measures.items()}
        return {name: mean.to(self.keys.device, torch.float32) for name, mean in means.items()}

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
            largest cut-off; ``-inf`` and ``-1`` where there are fewer documents.
        """
        self.compute()
        keys = self._merged_keys.to(self.keys.device)
        return scores_of(keys), self._rows_of(keys)

    def reset(self) -> None:
        """Forget all texts, for the next pass."""
        super().reset()
        self.query_embeddings = self.keys.new_empty(self.query_count, 0, dtype=torch.float32)
        self.query_seen = torch.zeros_like(self.query_seen)
        self._documents_began = False

    def _rows_of(self, keys: Tensor) -> Tensor:
        row_of_tie = torch.empty(self.document_count, dtype=torch.int64, device=keys.device)
        row_of_tie[self.tie_order.long()] = torch.arange(self.document_count, device=keys.device)
        return torch.where(keys == NOTHING, -1, row_of_tie[keys & 0xFFFFFFFF])

    def _gains_of(self, queries: Tensor, rows: Tensor) -> Tensor:
        """Grade of each ranked document; shapes ``(queries, 1)`` and ``(queries, ranks)``."""
        pairs = queries * self.document_count + rows
        place = torch.searchsorted(self._judged_pairs, pairs).clamp(max=len(self._judged_pairs) - 1)
        is_judged = (self._judged_pairs[place] == pairs) & (rows >= 0)
        return torch.where(is_judged, self._judged_gains[place], 0.0)


def _checked_tie_order(tie_order: Tensor | None, document_count: int) -> Tensor:
    if tie_order is None:
        return torch.arange(document_count, dtype=torch.int32)
    if tie_order.shape != (document_count,) or not tie_order.sort().values.equal(
        torch.arange(document_count, dtype=tie_order.dtype, device=tie_order.device)
    ):
        raise ValueError(
            f"Got a tie order of shape {tuple(tie_order.shape)}; need each of 0 to {document_count - 1} once. "
            "Pass the position of each document's id among the sorted ids."
        )
    return tie_order.to(torch.int32, copy=True)


def _merge_ranks(keys: Tensor) -> Tensor:
    """Best keys of all ranks, shape ``(world, queries, depth)``; two at a time, as sorting all would take memory."""
    return functools.reduce(_merge_two, keys.unbind())


def _merge_two(left: Tensor, right: Tensor) -> Tensor:
    """Best keys of two ranks, shape ``(queries, depth)``; each document once, although both may have it."""
    candidates = torch.cat([left, right], dim=1).sort(descending=True).values
    ties, order = (candidates & 0xFFFFFFFF).sort(stable=True)
    is_repeat = torch.zeros_like(candidates, dtype=torch.bool)
    is_repeat.scatter_(1, order, F.pad(ties[:, 1:] == ties[:, :-1], (1, 0), value=False))
    return candidates.masked_fill(is_repeat, NOTHING).topk(left.shape[1]).values


def _union_of_ranks(document_bits: Tensor) -> Tensor:
    return functools.reduce(Tensor.bitwise_or, document_bits.unbind())


def _count_bits(document_bits: Tensor) -> int:
    return sum(int(((document_bits >> bit) & 1).sum()) for bit in range(8))
