"""Candidates of each query: the documents that a model finds closest to it, but for those that answer it."""

import hashlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightning_jv5.data.arrow_cache import ArrowColumn, cached_rows
from lightning_jv5.data.cache import fingerprint
from lightning_jv5.data.distinct_texts import distinct_texts
from lightning_jv5.data.nearest import nearest
from lightning_jv5.data.teacher_vectors import TeacherLike, add_teacher_vectors

if TYPE_CHECKING:
    import datasets
    import pyarrow as pa

_DOCUMENTS_PER_TILE = 4096
_QUERIES_PER_PASS = 65536  # a pass over the corpus serves so many
_PAIRS_AT_ONCE = 8192  # of a query and a candidate, each a vector, that a judge compares
_ROWS_PER_TABLE = 1000


class SearchTexts(NamedTuple):
    """Distinct queries and documents, and which belong together.

    Attributes:
        queries: Column ``text``.
        documents: Column ``text``.
        query_of: Query of each row.
        document_of: Document of each row.
        barred: Pairs that are no candidates, ascending: ``query * len(documents) + document``.
        is_answer: For each of these whether the document answers the query; else it is the query's own text.
    """

    queries: "datasets.Dataset"
    documents: "datasets.Dataset"
    query_of: NDArray[np.int64]
    document_of: NDArray[np.int64]
    barred: NDArray[np.int64]
    is_answer: NDArray[np.bool_]


def search_texts(
    rows: "datasets.Dataset", others: "datasets.Dataset | None", known: "datasets.Dataset | None"
) -> SearchTexts:
    """Collect what is to be searched.

    Args:
        rows: Columns ``query`` and ``document``.
        others: Further documents in a column ``text``; they come first.
        known: Further queries and documents that belong together.
    """
    parts = [rows] if known is None or known._fingerprint == rows._fingerprint else [rows, known]
    searched = [] if others is None else [(others, "text")]
    queries = distinct_texts([(part, "query") for part in parts], "queries")
    documents = distinct_texts([*searched, *((part, "document") for part in parts)], "documents")
    query_of, document_of = queries.codes[0], documents.codes[len(searched)]
    count = int(query_of.max()) + 1  # those of the rows come first; nobody searches for the others
    query, document = np.concatenate(queries.codes), np.concatenate(documents.codes[len(searched) :])
    size = len(documents.texts)
    answers = np.unique((query * size + document)[query < count])
    same_query, same_document = _same_texts(queries.keys[:count], documents.keys)
    barred, first = np.unique(np.concatenate([answers, same_query * size + same_document]), return_index=True)
    wanted = queries.texts.select(range(count)) if count < len(queries.texts) else queries.texts
    return SearchTexts(wanted, documents.texts, query_of, document_of, barred, first < len(answers))


def _same_texts(
    queries: NDArray[np.int64], documents: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the queries whose text is a document's, and these documents, by their keys."""
    _, query, document = np.intersect1d(queries, documents, assume_unique=True, return_indices=True)
    return query.astype(np.int64), document.astype(np.int64)


class Candidates(NamedTuple):
    """The candidates of each query.

    Attributes:
        documents: Most similar first, shape ``(queries, depth)``; ``-1`` where there are fewer.
        similarities: What decides about margins; ``-inf`` where there are fewer.
        positive: Similarity of query and document, of each row.
        answers: Answers of each query that would have been candidates.
        same_text: The same of documents that are the query itself.
    """

    documents: NDArray[np.int32]
    similarities: NDArray[np.float32]
    positive: NDArray[np.float32]
    answers: NDArray[np.int64]
    same_text: NDArray[np.int64]


def find_candidates(texts: SearchTexts, model: TeacherLike, depth: int, device: str) -> Candidates:
    """Find the candidates of every query."""
    from tqdm.auto import tqdm

    queries, documents = (
        ArrowColumn(add_teacher_vectors(part, model, columns={"text": role}, origin=name), "text_teacher")
        for part, role, name in ((texts.queries, "query", "queries"), (texts.documents, "document", "documents"))
    )
    count, size = len(queries), len(documents)
    found, similarities = np.empty((count, depth), np.int32), np.empty((count, depth), np.float32)
    barred_query, barred_document = np.divmod(texts.barred, size)
    barred_scores = np.empty(len(texts.barred), np.float32)
    passes = range(0, count, _QUERIES_PER_PASS)
    with tqdm(total=len(passes) * size, desc="Searching", unit="document", unit_scale=True) as bar:
        for start in passes:
            stop = min(start + _QUERIES_PER_PASS, count)
            low, high = np.searchsorted(barred_query, [start, stop])
            excluded = torch.tensor(barred_query[low:high] - start), torch.tensor(barred_document[low:high])
            vectors = _vectors(queries[start:stop]).to(device, torch.float32)
            best = nearest(vectors, _tiles(documents, bar.update), depth=depth, excluded=excluded)
            found[start:stop], similarities[start:stop] = best.rows.cpu().numpy(), best.scores.cpu().numpy()
            barred_scores[low:high] = best.excluded_scores.cpu().numpy()
    within = barred_scores >= similarities[barred_query, -1]
    answers, same_text = (
        np.bincount(barred_query[within & (texts.is_answer == kind)], minlength=count) for kind in (True, False)
    )
    own = np.searchsorted(texts.barred, texts.query_of * size + texts.document_of)
    return Candidates(found, similarities, barred_scores[own], answers, same_text)


def _tiles(documents: ArrowColumn, passed: Callable[[int], object]) -> Iterator[Tensor]:
    for start in range(0, len(documents), _DOCUMENTS_PER_TILE):
        tile = _vectors(documents[start : start + _DOCUMENTS_PER_TILE])
        yield tile
        passed(len(tile))


def _vectors(lists: "pa.Array") -> Tensor:
    return torch.tensor(lists.flatten().to_numpy(zero_copy_only=False).reshape(len(lists), -1))


def judged(found: Candidates, texts: SearchTexts, judge: TeacherLike) -> Candidates:
    """Put another model's similarities in the place of those of the model that searched."""
    import pyarrow as pa

    is_there = found.documents >= 0
    used = np.unique(np.concatenate([found.documents[is_there].astype(np.int64), texts.document_of]))
    key = fingerprint("judged", texts.documents._fingerprint, hashlib.blake2b(used.tobytes()).hexdigest())
    schema = pa.schema({"text": pa.string()})

    def tables() -> "Iterator[pa.Table]":
        column = ArrowColumn(texts.documents, "text")
        for start in range(0, len(used), _ROWS_PER_TABLE):
            yield pa.table({"text": column[used[start : start + _ROWS_PER_TABLE].tolist()]}, schema)

    documents = cached_rows("distinct", key, schema, tables)
    query_vectors, document_vectors = (
        ArrowColumn(add_teacher_vectors(part, judge, columns={"text": role}, origin=name), "text_teacher")
        for part, role, name in ((texts.queries, "query", "queries to judge"), (documents, "document", "candidates"))
    )

    def similarities(query: NDArray[np.int64], document: NDArray[np.int64]) -> NDArray[np.float32]:
        from tqdm.auto import tqdm

        places = np.searchsorted(used, document)
        result = np.empty(len(query), np.float32)
        for start in tqdm(range(0, len(query), _PAIRS_AT_ONCE), desc="Judging", delay=1):
            some = slice(start, start + _PAIRS_AT_ONCE)
            pair = (_vectors(query_vectors[query[some].tolist()]), _vectors(document_vectors[places[some].tolist()]))
            result[some] = (pair[0].float() * pair[1].float()).sum(1).numpy()
        return result

    decided = np.full_like(found.similarities, -np.inf)
    decided[is_there] = similarities(is_there.nonzero()[0], found.documents[is_there].astype(np.int64))
    return found._replace(similarities=decided, positive=similarities(texts.query_of, texts.document_of))
