"""Rows with their hard negatives beside them, as Parquet, and what was counted on the way."""

import contextlib
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lightning_jv5.data.arrow_cache import ArrowColumn
from lightning_jv5.data.candidates import Candidates, SearchTexts
from lightning_jv5.data.hard_negatives import NegativeRules, choose_negatives

if TYPE_CHECKING:
    import datasets
    import pyarrow as pa

Layout = Literal["columns", "list"]
RowsWithout = Literal["drop", "keep"]

_ROWS_PER_TABLE = 4096


@dataclass(frozen=True)
class MiningSummary:
    """What was mined and what was dropped. A candidate of a query with several rows counts once for each.

    Attributes:
        rows: Rows with a query and a document.
        queries: Distinct queries.
        documents: Distinct documents that were searched.
        candidates: Candidates that were looked at, those that are dropped below among them.
        dropped_answers: Candidates that answer the query.
        dropped_same_text: Candidates that are the query itself.
        dropped_top: Candidates left out by ``skip_top``.
        dropped_by_margin: Candidates too similar to the query.
        rows_with_fewer: Rows with fewer negatives than asked for, those without any among them.
        rows_without: Rows without any.
        rows_written: Rows in the output.
        negatives: Negatives in the output.
        mean_positive: Mean similarity of query and document, over the rows.
        mean_negative: Mean similarity of query and negative, over the negatives.
    """

    rows: int
    queries: int
    documents: int
    candidates: int
    dropped_answers: int
    dropped_same_text: int
    dropped_top: int
    dropped_by_margin: int
    rows_with_fewer: int
    rows_without: int
    rows_written: int
    negatives: int
    mean_positive: float
    mean_negative: float

    def summary(self) -> str:
        """Return what was counted, a line each."""
        return "\n".join(
            f"{name.replace('_', ' '):<18}  {value:>12,}" if isinstance(value, int) else
            f"{name.replace('_', ' '):<18}  {value:>12.4f}"
            for name, value in asdict(self).items()
        )  # fmt: skip


def write_mined_rows(
    file: Path,
    rows: "datasets.Dataset",
    texts: SearchTexts,
    found: Candidates,
    rules: NegativeRules,
    *,
    layout: Layout,
    scores: bool,
    rows_without: RowsWithout,
) -> MiningSummary:
    """Choose the negatives, some rows at a time, and write them."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from tqdm.auto import tqdm

    base = found.positive
    if rules.margin_from == "lowest":
        lowest = np.full(len(texts.queries), np.inf, np.float32)
        np.minimum.at(lowest, texts.query_of, found.positive)
        base = lowest[texts.query_of]
    arrow_rows, documents = rows.with_format("arrow"), ArrowColumn(texts.documents, "text")
    counts: Counter[str] = Counter()
    total = 0.0
    with contextlib.ExitStack() as stack:
        writer = None
        for start in tqdm(range(0, len(rows), _ROWS_PER_TABLE), desc="Writing", delay=1):
            part = arrow_rows[start : start + _ROWS_PER_TABLE]
            stop = start + len(part)
            query = texts.query_of[start:stop]
            similarities = found.similarities[query]
            chosen = choose_negatives(similarities, base[start:stop], np.arange(start, stop), rules)
            kept = _Negatives(
                np.where(chosen.places < 0, -1, np.take_along_axis(found.documents[query], chosen.places, axis=1)),
                np.take_along_axis(similarities, chosen.places, axis=1),
            )
            table = _table(part, kept, documents, layout, scores)
            if rows_without == "drop":
                table = table.filter(pa.array(kept.counts > 0))
            writer = writer or stack.enter_context(pq.ParquetWriter(file, table.schema))
            writer.write_table(table)
            is_candidate = np.isfinite(similarities)
            answers, same_text = int(found.answers[query].sum()), int(found.same_text[query].sum())
            counts["candidates"] += int(is_candidate.sum()) + answers + same_text
            counts["dropped_answers"] += answers
            counts["dropped_same_text"] += same_text
            counts["dropped_top"] += int(is_candidate[:, : rules.skip_top].sum())
            counts["dropped_by_margin"] += int(chosen.over_limit.sum())
            counts["rows_with_fewer"] += int((kept.counts < rules.negatives).sum())
            counts["rows_without"] += int((kept.counts == 0).sum())
            counts["rows_written"] += len(table)
            counts["negatives"] += int(kept.counts.sum())
            total += float(kept.similarities[kept.documents >= 0].sum(dtype=np.float64))
    if not counts["negatives"]:
        raise ValueError(
            f"None of {len(rows)} rows has a negative: of {counts['candidates']} candidates, "
            f"{counts['dropped_answers']} answer their query and {counts['dropped_by_margin']} are too similar by the "
            "margins. Make the margins smaller, raise depth, or add a corpus."
        )
    return MiningSummary(
        rows=len(rows),
        queries=len(texts.queries),
        documents=len(texts.documents),
        **counts,
        mean_positive=float(found.positive.mean(dtype=np.float64)),
        mean_negative=total / counts["negatives"],
    )


class _Negatives(NamedTuple):
    documents: NDArray[np.int64]  # (rows, negatives), -1 where there are fewer
    similarities: NDArray[np.float32]

    @property
    def counts(self) -> NDArray[np.int64]:
        return np.asarray((self.documents >= 0).sum(axis=1))


def _table(part: "pa.Table", negatives: _Negatives, documents: ArrowColumn, layout: Layout, scores: bool) -> "pa.Table":
    """Return rows with their negatives beside them."""
    import pyarrow as pa

    is_there = negatives.documents >= 0
    distinct = np.unique(negatives.documents[is_there])
    texts = documents[distinct.tolist()] if len(distinct) else pa.array([], pa.string())
    places = np.searchsorted(distinct, negatives.documents)
    offsets = pa.array(np.concatenate([[0], negatives.counts.cumsum()]).astype(np.int32))
    table = part.replace_schema_metadata(None)  # it would describe the columns that were there before
    if layout == "list":
        table = table.append_column(
            "negatives", pa.ListArray.from_arrays(offsets, texts.take(pa.array(places[is_there])))
        )
    else:
        for column in range(places.shape[1]):
            taken = texts.take(pa.array(places[:, column], mask=~is_there[:, column]))
            table = table.append_column("negative" if column == 0 else f"negative_{column + 1}", taken)
    if scores:
        values = pa.array(negatives.similarities[is_there])
        table = table.append_column("negative_scores", pa.ListArray.from_arrays(offsets, values))
    return table
