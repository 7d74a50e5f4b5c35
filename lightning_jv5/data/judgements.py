"""Judgements of which document answers which query: their table, and where the texts are that they are about."""

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lightning_jv5.data.arrow_cache import ArrowColumn
from lightning_jv5.data.bad_rows import BadRows
from lightning_jv5.data.identified_rows import BadRecordError
from lightning_jv5.data.source import did_you_mean

if TYPE_CHECKING:
    import datasets
    import pyarrow as pa

JUDGEMENT_COLUMNS = ("query-id", "corpus-id", "score")
"""What the files and data sets call them."""

_IDS_PER_LOOK_UP = 1_000_000
_MOST_IDS_TO_GUESS_FROM = 20_000  # the nearest of a million names takes minutes to find


def judgement_schema() -> "pa.Schema":
    """Return the columns of a table of judgements: ``line`` is where each stands, for messages."""
    import pyarrow as pa

    return pa.schema({"query_id": pa.string(), "document_id": pa.string(), "grade": pa.int64(), "line": pa.int64()})


def judgement(query: str, document: str, grade: Any, line: int) -> tuple[tuple[str, str], dict[str, Any]]:
    """Return what may be judged only once, and the row of the table.

    Raises:
        BadRecordError: If the grade is no whole number.

    >>> judgement("q1", "d1", "2", line=2)
    (('q1', 'd1'), {'query_id': 'q1', 'document_id': 'd1', 'grade': 2, 'line': 2})
    """
    try:
        whole = int(grade)
        if not isinstance(grade, str) and whole != grade:
            raise ValueError
    except (ValueError, TypeError, OverflowError) as error:
        raise BadRecordError(f"the score is {grade!r}", "Need a whole number; 0 means irrelevant.") from error
    return (query, document), {"query_id": query, "document_id": document, "grade": whole, "line": line}


class PlacedJudgements(NamedTuple):
    """Where the texts of judgements are.

    Attributes:
        usable: Whether both are there; bool, shape ``(judgements,)``.
        rows: Row of each judgement's query among the queries and of its document in the corpus, as ``"query"`` and
            ``"document"``; int64, ``-1`` where there is none.
    """

    usable: NDArray[np.bool_]
    rows: dict[str, NDArray[np.int64]]


def place_judgements(
    judged: "pa.Table",
    queries: "datasets.Dataset",
    corpus: "datasets.Dataset",
    bad: BadRows,
    *,
    homes: tuple[str, str] = ("queries.jsonl", "corpus.jsonl"),
    unit: str = "line",
) -> PlacedJudgements:
    """Find the texts that are judged by their ids.

    Args:
        judged: Judgements, with the columns of :func:`judgement_schema`.
        queries: Rows with ``id``.
        corpus: Rows with ``id``.
        bad: Is told of judgements of texts that are not there.
        homes: What messages call the queries and the corpus.
        unit: What they call the place of a judgement.
    """
    usable = np.ones(len(judged), dtype=bool)
    rows = {}
    for role, texts, home in (("query", queries, homes[0]), ("document", corpus, homes[1])):
        rows[role] = _rows_of(judged[f"{role}_id"], texts)
        missing = (usable & (rows[role] < 0)).nonzero()[0]
        if len(missing):
            name, line = (judged[column][int(missing[0])].as_py() for column in (f"{role}_id", "line"))
            what = f"judges {role} {name!r}, which is not in {home}"
            bad.report(f"{unit} {line}", what, _where_is(name, texts), count=len(missing))
        usable &= rows[role] >= 0
    return PlacedJudgements(usable, rows)


def _rows_of(wanted: "pa.ChunkedArray", texts: "datasets.Dataset") -> NDArray[np.int64]:
    """Return the row of each wanted id, -1 where there is none; memory grows with what is wanted alone."""
    import pyarrow.compute as pc

    distinct = wanted.unique()
    rows = np.full(len(distinct), -1, np.int64)
    ids = ArrowColumn(texts, "id")
    for start in range(0, len(texts), _IDS_PER_LOOK_UP):
        places = pc.index_in(ids[start : start + _IDS_PER_LOOK_UP], value_set=distinct)
        found = pc.indices_nonzero(pc.is_valid(places)).to_numpy()
        rows[places.drop_null().to_numpy()] = start + found.astype(np.int64)
    return np.asarray(rows[pc.index_in(wanted, value_set=distinct).to_numpy()])


def _where_is(name: str, texts: "datasets.Dataset") -> str:
    ids = ArrowColumn(texts, "id")[:_MOST_IDS_TO_GUESS_FROM].to_pylist()
    return f"Correct the id or remove the judgement; do the files belong together?{did_you_mean(name, ids)}"
