"""Reranking: are a query's right texts above the wrong ones that were found with them?"""

import logging
from collections.abc import Sequence
from typing import Any

from lightning_jv5.data.source import Source
from lightning_jv5.metrics.views import Precision
from lightning_jv5.tasks.columns import column, group_column, rows_of_distinct, text_column
from lightning_jv5.tasks.retrieval import RetrievalData, RetrievalTask

_log = logging.getLogger(__name__)


class RerankingTask(RetrievalTask):
    """Order each query's own candidates, some right and some wrong, by cosine, as mteb does.

    The protocol is that of ``AbsTaskReranking`` in https://github.com/embeddings-benchmark/mteb, version 2: every row
    is a query of its own, and one without right or without wrong texts is left out (counted in the log). Measures are
    ``map@1000`` (mteb's main one), ``mrr@10`` and ``ndcg@10``. A text that is a candidate of several queries is encoded
    once. One that a row lists twice counts once, and as right if it is both. Texts that tie rank by their id: those
    that answer no query at all come first, so a model that tells nothing apart gains nothing by it.

    Args:
        rows: Rows with ``query`` and the lists of texts ``positive`` and ``negative``.
        main_metric: The measure that stands for the task; as for :class:`RetrievalTask`.
        group: Column that names each row's group, such as its language; the metric's ``breakdown()`` has the measures
            of each.

    Raises:
        ValueError: If there is no such measure; when loading, if a column is missing, is no list of texts, or no row
            can be used.

    >>> from datasets import Dataset
    >>> class Animals(Source):
    ...     def load(self):
    ...         return Dataset.from_dict({"query": ["cat"], "positive": [["tiger"]], "negative": [["pen", "ink"]]})
    >>> task = RerankingTask(Animals())
    >>> task.prepare()
    >>> [(part.role, part.texts) for part in task.parts()]
    [('query', ['cat']), ('document', ['tiger', 'pen', 'ink'])]
    """

    precisions: Sequence[Precision] = ("float", "int8", "binary", "asymmetric")
    measures = ("map@1000", "mrr@10", "ndcg@10")

    def __init__(self, rows: Source, *, main_metric: str = "map@1000", group: str | None = None) -> None:
        super().__init__(rows, main_metric=main_metric, group=group)
        self.rows = rows

    def load(self) -> RetrievalData:
        """Read the rows."""
        rows = self.rows.load()
        queries = text_column(rows, "query", "rows")
        positive, negative = (_lists(column(rows, name, "rows"), name) for name in ("positive", "negative"))
        kept = [row for row in range(len(queries)) if positive[row] and negative[row]]
        if not kept:
            raise ValueError(
                f"Got {len(queries)} rows of which none has both positive and negative texts; need one. Check the two "
                "columns."
            )
        if len(kept) < len(queries):
            left_out = len(queries) - len(kept)
            _log.warning("Left out %d of %d queries without positive or negative texts.", left_out, len(queries))
        right = rows_of_distinct(text for row in kept for text in positive[row])
        wrong = rows_of_distinct(text for row in kept for text in negative[row])
        texts = [*right, *(text for text in wrong if text not in right)]
        width = len(str(len(texts)))
        name_of = {text: f"{number:0{width}}" for number, text in enumerate(texts)}  # they sort as the texts stand
        judgements, candidates = {}, {}
        for row in kept:
            answers = {name_of[text]: 1 for text in positive[row]}
            listed = dict.fromkeys((*answers, *(name_of[text] for text in negative[row])))
            judgements[str(row)], candidates[str(row)] = {name: int(name in answers) for name in listed}, list(listed)
        groups = [None] * len(queries) if self.group is None else group_column(rows, self.group, "rows")
        return RetrievalData(
            [str(row) for row in kept],
            [queries[row] for row in kept],
            list(name_of.values()),
            texts,
            judgements,
            {str(row): group for row in kept if (group := groups[row]) is not None},
            candidates,
        )


def _lists(values: Sequence[Any], name: str) -> list[list[str]]:
    for row, value in enumerate(values):
        if value is not None and not (isinstance(value, list) and all(isinstance(text, str) for text in value)):
            raise ValueError(
                f"Got rows with {name}={value!r:.60} in row {row} (the first is 0); need a list of texts. Correct the "
                f"row, or tell the source which column holds the lists."
            )
    return [value or [] for value in values]
