"""Retrieval measured for each group of queries, too."""

from collections.abc import Mapping, Sequence
from typing import Any

from lightning_jv5.metrics.groups import rows_by_group
from lightning_jv5.metrics.judgements import Judgements
from lightning_jv5.metrics.retrieval import StreamingRetrieval


class GroupedRetrieval(StreamingRetrieval):
    """:class:`StreamingRetrieval` whose :meth:`breakdown` averages over the judged queries of each group.

    Args:
        judgements: As there.
        query_count: As there.
        groups: Group of each query, None for one in none. Those without a judged query are left out.
        settings: The other arguments of :class:`StreamingRetrieval`.

    Raises:
        ValueError: As there; or if there is not a group for each query.

    >>> import torch
    >>> metric = GroupedRetrieval(
    ...     {0: {0: 1}, 1: {0: 1}}, query_count=2, groups=["de", "en"], document_count=2, measures=["recall@1"]
    ... )
    >>> metric.update("query", torch.eye(2), torch.arange(2))
    >>> metric.update("document", torch.eye(2), torch.arange(2))
    >>> metric.breakdown()
    {'de': {'recall@1': 1.0}, 'en': {'recall@1': 0.0}}
    """

    def __init__(
        self,
        judgements: Mapping[int, Mapping[int, int]] | Judgements,
        *,
        query_count: int,
        groups: Sequence[str | None],
        **settings: Any,
    ) -> None:
        super().__init__(judgements, query_count=query_count, **settings)
        rows = set(self._judgements.judged.tolist())
        judged = [group if query in rows else None for query, group in enumerate(groups)]
        self._queries_of_group = rows_by_group(judged, query_count)

    def breakdown(self) -> dict[str, dict[str, float]]:
        """Return each group's mean of each measure. Merges over ranks, so every rank asks."""
        values = {name: of_queries.cpu() for name, of_queries in self.per_query().items()}
        return {
            group: {name: float(of_queries[queries].mean()) for name, of_queries in values.items()}
            for group, queries in self._queries_of_group.items()
        }
