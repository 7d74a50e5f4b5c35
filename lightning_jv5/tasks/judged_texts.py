"""A corpus, queries and judgements as tables, put together to the data of a retrieval task."""

from typing import TYPE_CHECKING

import numpy as np

from lightning_jv5.data.bad_rows import BadRows
from lightning_jv5.data.judgements import place_judgements
from lightning_jv5.data.text_column import TextColumn
from lightning_jv5.tasks.retrieval import RetrievalData

if TYPE_CHECKING:
    import datasets


def judged_texts(
    corpus: "datasets.Dataset",
    queries: "datasets.Dataset",
    qrels: "datasets.Dataset",
    bad: BadRows,
    *,
    ignore_identical_ids: bool,
    homes: tuple[str, str] = ("queries.jsonl", "corpus.jsonl"),
    unit: str = "line",
) -> RetrievalData:
    """Keep all documents and the queries that are judged, in their order.

    Args:
        corpus: Memory-mapped rows with ``id`` and ``text``; the texts stay on disk, the ids are read.
        queries: The same, perhaps with ``group``.
        qrels: Judgements, with the columns of :func:`~lightning_jv5.data.judgements.judgement_schema`.
        bad: Is told of judgements of texts that are not there.
        ignore_identical_ids: Whether a document whose id is the query's is not to be found.
        homes: What messages call the queries and the corpus.
        unit: What messages call the place of a judgement.

    Raises:
        ValueError: Where ``bad`` raises, or if no judgement can be used.
    """
    judged = qrels.with_format("arrow")[:]
    usable, rows = place_judgements(judged, queries, corpus, bad, homes=homes, unit=unit)
    bad.finish(len(judged))
    if not usable.any():
        raise ValueError(
            f"{bad.origin}: none of {len(judged)} judgements is of a query and a document that are there; need one. Do "
            "the files belong together?"
        )
    judgements: dict[str, dict[str, int]] = {}
    numbers = usable.nonzero()[0]
    columns = [judged[name].take(numbers).to_pylist() for name in ("query_id", "document_id", "grade")]
    for query, document, grade in zip(*columns, strict=True):
        judgements.setdefault(query, {})[document] = grade
    kept = queries.select(np.unique(rows["query"][numbers]))
    query_ids, document_ids = list(kept["id"][:]), list(corpus["id"][:])
    groups = dict(zip(query_ids, kept["group"][:], strict=True)) if "group" in kept.column_names else {}
    own = set(query_ids) & set(document_ids) if ignore_identical_ids else set()
    return RetrievalData(
        query_ids,
        list(kept["text"][:]),
        document_ids,
        TextColumn(corpus, "text"),
        judgements,
        groups={query: group for query, group in groups.items() if group is not None},
        excluded={query: [query] for query in query_ids if query in own},
    )
