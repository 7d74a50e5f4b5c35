"""What people said of the documents of each query, and what rankings are worth by it."""

from collections.abc import Mapping

import torch
from torch import Tensor

from lightning_jv5.metrics.ranking import RankingMeasure


class Judgements:
    """Grades of documents, by query, against which rankings are measured; on the CPU, in float64.

    Args:
        grades: Grade of each judged document row, by query row; 0 and below are irrelevant.
        query_count: Number of queries.
        document_count: Number of documents.

    Attributes:
        query_count: As given.
        document_count: As given.
        judged: Rows of the queries with at least one judgement, ascending.

    Raises:
        ValueError: If nothing is judged, or a row does not exist.

    >>> from lightning_jv5.metrics import ndcg
    >>> judgements = Judgements({0: {1: 1}}, query_count=2, document_count=3)
    >>> judgements.measure(torch.tensor([[2, 1], [0, -1]]), {"ndcg@10": (ndcg, 10)})
    {'ndcg@10': tensor([0.6309], dtype=torch.float64)}
    """

    def __init__(self, grades: Mapping[int, Mapping[int, int]], *, query_count: int, document_count: int) -> None:
        triples = [(query, row, grade) for query, of_query in grades.items() for row, grade in of_query.items()]
        if not triples:
            raise ValueError("Got no judgements; need the grade of at least one document. Check the task's data.")
        query, document, grade = torch.tensor(triples, dtype=torch.int64).T
        for what, row, count in (("query", query, query_count), ("document", document, document_count)):
            if row.min() < 0 or row.max() >= count:
                raise ValueError(
                    f"Got judgements of {what} rows {row.min()} to {row.max()}; need 0 to {count - 1}. "
                    f"Leave out judgements of {what} texts that are not there, or add the texts."
                )
        gains = grade.clamp(min=0).to(torch.float64)
        self.query_count, self.document_count = query_count, document_count
        order = (query * document_count + document).argsort()
        self._pairs = (query * document_count + document)[order]
        self._gains = gains[order]

        best_first = gains.argsort(descending=True, stable=True)
        best_first = best_first[query[best_first].argsort(stable=True)]  # by query, then by gain
        counts = torch.bincount(query, minlength=query_count)
        rank = torch.arange(len(query)) - (counts.cumsum(0) - counts)[query[best_first]]
        self._ideal_gains = torch.zeros(query_count, int(counts.max()), dtype=torch.float64)
        self._ideal_gains[query[best_first], rank] = gains[best_first]
        self.judged = counts.nonzero().squeeze(1)

    def measure(self, rows: Tensor, measures: Mapping[str, tuple[RankingMeasure, int]]) -> dict[str, Tensor]:
        """Return each measure of each judged query.

        Args:
            rows: Document rows, best first, of every query, ``-1`` where there are fewer; shape ``(queries, ranks)``.
            measures: Function and cut-off of each measure.

        Returns:
            float64, shape ``(len(judged),)``, by the measure's name.
        """
        gains = self._gains_of(self.judged[:, None], rows.cpu()[self.judged])
        ideal_gains = self._ideal_gains[self.judged]
        return {name: measure(gains, ideal_gains, k) for name, (measure, k) in measures.items()}

    def _gains_of(self, queries: Tensor, rows: Tensor) -> Tensor:
        """Grade of each ranked document; shapes ``(queries, 1)`` and ``(queries, ranks)``."""
        pairs = queries * self.document_count + rows
        place = torch.searchsorted(self._pairs, pairs).clamp(max=len(self._pairs) - 1)
        is_judged = (self._pairs[place] == pairs) & (rows >= 0)
        return torch.where(is_judged, self._gains[place], 0.0)
