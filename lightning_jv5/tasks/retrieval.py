"""Retrieval tasks: find each query's documents in a corpus."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from lightning_jv5.data.source import Source
from lightning_jv5.data.text_column import TextColumn
from lightning_jv5.metrics.grouped_retrieval import GroupedRetrieval
from lightning_jv5.metrics.judgements import Judgements
from lightning_jv5.metrics.ranking import parse_measure
from lightning_jv5.metrics.retrieval import DEFAULT_MEASURES, StreamingRetrieval
from lightning_jv5.metrics.tie_order import TieOrder
from lightning_jv5.metrics.views import PRECISIONS, Precision, View
from lightning_jv5.rebuildable import Rebuildable
from lightning_jv5.tasks.columns import group_column, rows_of_distinct, text_column
from lightning_jv5.tasks.task import EvaluationTask, TaskPart


@dataclass
class RetrievalData(Rebuildable):
    """Queries, documents and judgements under their ids, as BEIR and TREC have them.

    Attributes:
        query_ids: Id of each query; no two alike.
        queries: Text of each query.
        document_ids: Id of each document; no two alike. Documents whose scores tie rank by id, descending.
        documents: Text of each document, empty where there is none. May be read from disk as it is indexed.
        judgements: Grade of each judged document's id, by query id; 0 and below are irrelevant.
        groups: Group of a query, such as its language, by its id; a query may be in none.
        candidates: Ids of the only documents that are ranked for a query, by its id; by default all are ranked for
            every query. A query that is not listed has none.
        excluded: Ids of documents that are not to be found for a query, by its id; the documents need not be there.

    Raises:
        ValueError: If a column is empty, ids repeat, or a judgement, group or candidate names an id that is not there.

    >>> RetrievalData(["q1"], ["capital of France"], ["d1"], ["Paris"], {"q1": {"d2": 1}})
    Traceback (most recent call last):
        ...
    ValueError: Got judgements of 1 unknown documents, such as 'd2'; ... Add them with an empty text, or ...
    """

    query_ids: Sequence[str]
    queries: Sequence[str]
    document_ids: Sequence[str]
    documents: Sequence[str]
    judgements: Mapping[str, Mapping[str, int]]
    groups: Mapping[str, str] = field(default_factory=dict)
    candidates: Mapping[str, Sequence[str]] | None = None
    excluded: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for column, ids, texts in (
            ("queries", self.query_ids, self.queries),
            ("documents", self.document_ids, self.documents),
        ):
            if not len(texts) or len(ids) != len(texts):
                raise ValueError(
                    f"Got {len(texts)} {column} and {len(ids)} ids; need as many of both, and at least one. "
                    "Check the files or the split that the task reads."
                )
            if len(set(ids)) != len(ids):
                raise ValueError(
                    f"Got {len(ids) - len(set(ids))} repeated ids of {column}; need an id for each. Drop the repeats."
                )
        if not any(self.judgements.values()):
            raise ValueError("Got no judgements; need the grade of at least one document. Check the relevance file.")
        queries, documents = set(self.query_ids), set(self.document_ids)
        for part, what, unknown in (
            ("judgements", "queries", self.judgements.keys() - queries),
            ("judgements", "documents", self.judged_documents() - documents),
            ("groups", "queries", self.groups.keys() - queries),
            ("exclusions", "queries", self.excluded.keys() - queries),
            ("candidates", "queries", (self.candidates or {}).keys() - queries),
            ("candidates", "documents", self.candidate_documents() - documents),
        ):
            if unknown:
                raise ValueError(
                    f"Got {part} of {len(unknown)} unknown {what}, such as {min(unknown)!r}; need every such id "
                    f"among the {what}. Add them with an empty text, or drop their {part}."
                )

    def judged_documents(self) -> set[str]:
        """Return the ids that any judgement names."""
        return {document for grades in self.judgements.values() for document in grades}

    def candidate_documents(self) -> set[str]:
        """Return the ids that are a candidate of any query; none where all documents are ranked."""
        return {document for documents in (self.candidates or {}).values() for document in documents}

    def sample(self, max_documents: int, *, seed: int) -> "RetrievalData":
        """Keep all judged documents (and candidates) and a random sample of the others, in their order.

        Raises:
            ValueError: If those that are kept in any case are too many.

        >>> data = RetrievalData(["q"], ["?"], list("abcd"), list("ABCD"), {"q": {"c": 1}})
        >>> data.sample(2, seed=0).documents
        ['C', 'D']
        """
        needed = self.judged_documents() | self.candidate_documents()
        if max_documents < len(needed):
            raise ValueError(
                f"Got max_documents={max_documents} for {len(needed)} judged documents; need at least {len(needed)}, "
                "as a corpus without them would make the task easier or impossible. Raise it, or take fewer queries."
            )
        if max_documents >= len(self.documents):
            return self
        others = [row for row, document in enumerate(self.document_ids) if document not in needed]
        drawn = torch.randperm(len(others), generator=torch.Generator().manual_seed(seed))[
            : max_documents - len(needed)
        ]
        dropped = set(others) - {others[place] for place in drawn.tolist()}
        kept = [row for row in range(len(self.documents)) if row not in dropped]
        texts = self.documents
        documents = texts.take(kept) if isinstance(texts, TextColumn) else [texts[row] for row in kept]
        return replace(self, document_ids=[self.document_ids[row] for row in kept], documents=documents)


@dataclass(frozen=True)
class _Rows:
    """What a metric needs to know of the data: ids as the rows of their texts."""

    judgements: Judgements
    candidates: dict[int, list[int]] | None
    excluded: dict[int, list[int]] | None
    tie_order: TieOrder


def _rows_of(data: RetrievalData) -> _Rows:
    named = data.judged_documents() | data.candidate_documents()
    named.update(document for documents in data.excluded.values() for document in documents)
    query_row = {name: row for row, name in enumerate(data.query_ids)}
    document_row = {name: row for row, name in enumerate(data.document_ids) if name in named}
    candidates = data.candidates
    excluded = {
        query_row[query]: [document_row[document] for document in documents if document in document_row]
        for query, documents in data.excluded.items()
    }
    grades = {
        query_row[query]: {document_row[document]: grade for document, grade in grades.items()}
        for query, grades in data.judgements.items()
    }
    return _Rows(
        Judgements(grades, query_count=len(data.queries), document_count=len(data.documents)),
        None
        if candidates is None
        else {row: [document_row[name] for name in candidates.get(query, ())] for query, row in query_row.items()},
        {query: documents for query, documents in excluded.items() if documents} or None,
        TieOrder(_places_when_sorted(data.document_ids), document_count=len(data.documents)),
    )


class RetrievalTask(EvaluationTask):
    """Find each query's document among all documents: the ``document`` of a row answers its ``query``.

    The same document in several rows is one document; the same query in several rows has several answers.
    To read data of another form, inherit and override :meth:`load`; for data that is there already, see
    :class:`ReadyRetrieval`.

    Args:
        pairs: Rows with a ``query`` and a ``document``.
        corpus: Rows with a ``text`` that answers no query, unless it is also one of the documents.
        max_documents: Size of the corpus: all judged documents and a random sample of the others. By default all.
        seed: Seed of that sample.
        main_metric: The measure that stands for the task, such as ``"ndcg@10"``.
        group: Column of ``pairs`` that names each query's group, such as its language; the metric's ``breakdown()`` has
            the measures of each. A query that is in several rows is in the group of the first.

    Raises:
        ValueError: If there is no such measure; when loading, if the data is empty or lacks a column.
    """

    precisions: Sequence[Precision] = PRECISIONS
    measures: Sequence[str] = DEFAULT_MEASURES

    def __init__(
        self,
        pairs: Source | None = None,
        *,
        corpus: Source | None = None,
        max_documents: int | None = None,
        seed: int = 0,
        main_metric: str = "ndcg@10",
        group: str | None = None,
    ) -> None:
        parse_measure(main_metric)
        self.pairs, self.corpus = pairs, corpus
        self.max_documents, self.seed = max_documents, seed
        self.main_metric, self.group = main_metric, group
        self._data: RetrievalData | None = None

    def load(self) -> RetrievalData:
        """Read the whole data; :meth:`prepare` calls it once and takes the sample."""
        if self.pairs is None:
            raise ValueError("Got a retrieval task without pairs; need a source of query and document. Set pairs.")
        rows = self.pairs.load()
        queries, documents = (text_column(rows, name, "pairs") for name in ("query", "document"))
        distractors = (
            [] if self.corpus is None else text_column(self.corpus.load(), "text", "corpus", may_be_empty=True)
        )
        query_rows, document_rows = rows_of_distinct(queries), rows_of_distinct([*documents, *distractors])
        judgements: dict[str, dict[str, int]] = {}
        for query, document in zip(queries, documents, strict=True):
            judgements.setdefault(str(query_rows[query]), {})[str(document_rows[document])] = 1
        groups: dict[str, str] = {}
        if self.group is not None:
            for query, group in zip(queries, group_column(rows, self.group, "pairs"), strict=True):
                if group is not None:
                    groups.setdefault(str(query_rows[query]), group)
        return RetrievalData(
            [str(row) for row in query_rows.values()],
            list(query_rows),
            [str(row) for row in document_rows.values()],
            list(document_rows),
            judgements,
            groups,
        )

    def prepare(self) -> None:
        """Load the data, if that has not been done."""
        if self._data is None:
            data = self.load()
            self._data = data if self.max_documents is None else data.sample(self.max_documents, seed=self.seed)

    @property
    def data(self) -> RetrievalData:
        """The data that is scored, after :meth:`prepare`."""
        if self._data is None:
            raise ValueError("Got a task without data; need it loaded. Call prepare() first.")
        return self._data

    def parts(self) -> list[TaskPart]:
        """Return the queries, for every rank, then the documents, to be divided among ranks."""
        return [
            TaskPart("query", self.data.queries, sharded=False),
            TaskPart("document", self.data.documents, sharded=True),
        ]

    def metric(self, view: View | None = None) -> StreamingRetrieval:
        """Return a new metric, in this view, of the usual measures and the task's main one."""
        data, rows = self.data, self._rows
        settings: dict[str, Any] = {
            "query_count": len(data.queries),
            "document_count": len(data.documents),
            "tie_order": rows.tie_order,
            "measures": list(dict.fromkeys((*self.measures, self.main_metric))),
            "view": view,
            "excluded": rows.excluded,
            "candidates": rows.candidates,
        }
        if data.groups:
            groups = [data.groups.get(query) for query in data.query_ids]
            return GroupedRetrieval(rows.judgements, groups=groups, **settings)
        return StreamingRetrieval(rows.judgements, **settings)

    @functools.cached_property
    def _rows(self) -> _Rows:
        """The same for every view, and with millions of ids not quickly found."""
        return _rows_of(self.data)

    def examples(self, metric: StreamingRetrieval, count: int = 5, top: int = 3) -> list[dict[str, Any]]:
        """Show what ranks first for the first queries, as plain data for a table or a text panel.

        Args:
            metric: A metric of this task that has seen the texts. Under several ranks, all of them ask.
            count: Queries to show.
            top: Documents to show of each; at most the metric's depth.

        Returns:
            One ``{"query": text, "documents": [{"text", "score", "grade", "relevant"}, ...]}`` per query, best
            document first; ``grade`` is ``None`` for a document that nobody judged.
        """
        data = self.data
        scores, rows = (values[:count, :top].tolist() for values in metric.rankings())
        examples = []
        for query, query_scores, query_rows in zip(range(len(rows)), scores, rows, strict=True):
            grades = data.judgements.get(data.query_ids[query], {})
            documents = []
            for score, row in zip(query_scores, query_rows, strict=True):
                if row < 0:
                    continue
                grade = grades.get(data.document_ids[row])
                relevant = grade is not None and grade > 0
                documents.append({"text": data.documents[row], "score": score, "grade": grade, "relevant": relevant})
            examples.append({"query": data.queries[query], "documents": documents})
        return examples


class ReadyRetrieval(RetrievalTask):
    """Retrieval over data that is already in memory.

    Args:
        data: Queries, documents and judgements.
        max_documents: As for :class:`RetrievalTask`.
        seed: As for :class:`RetrievalTask`.
        main_metric: As for :class:`RetrievalTask`.

    >>> task = ReadyRetrieval(RetrievalData(["q"], ["capital of France"], ["d"], ["Paris"], {"q": {"d": 1}}))
    >>> task.prepare()
    >>> [(part.role, part.texts) for part in task.parts()]
    [('query', ['capital of France']), ('document', ['Paris'])]
    """

    def __init__(
        self,
        data: RetrievalData,
        *,
        max_documents: int | None = None,
        seed: int = 0,
        main_metric: str = "ndcg@10",
    ) -> None:
        super().__init__(max_documents=max_documents, seed=seed, main_metric=main_metric)
        self._ready = data

    def load(self) -> RetrievalData:
        """Return the data."""
        return self._ready


def _places_when_sorted(ids: Sequence[str]) -> Tensor:
    places = torch.empty(len(ids), dtype=torch.int64)
    places[torch.tensor(sorted(range(len(ids)), key=ids.__getitem__))] = torch.arange(len(ids))
    return places
