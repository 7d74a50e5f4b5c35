"""Hard negatives: documents that a model finds close to a query although they do not answer it."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import torch

from lightning_jv5.data.cache import atomic_folder
from lightning_jv5.data.candidates import find_candidates, judged, search_texts
from lightning_jv5.data.hard_negatives import MarginFrom, NegativeRules, Sampling
from lightning_jv5.data.mined_rows import Layout, MiningSummary, RowsWithout, write_mined_rows
from lightning_jv5.data.row_rules import RowRules
from lightning_jv5.data.source import Source, did_you_mean
from lightning_jv5.data.teacher_vectors import TeacherLike
from lightning_jv5.models.teacher import Teacher
from lightning_jv5.rebuildable import Plain, Rebuildable, describe

if TYPE_CHECKING:
    import datasets

PAIRS_FILE, SUMMARY_FILE = "pairs.parquet", "mining.json"


@runtime_checkable
class WithCorpus(Protocol):
    """Pairs that come with a corpus, such as :class:`~lightning_jv5.data.BeirFolder`."""

    def corpus(self) -> "datasets.Dataset":
        """Return documents that may be negatives, in a column ``text``."""

    def relevant(self) -> "datasets.Dataset":
        """Return ``query`` and ``document`` of whatever answers a query, trained on or not."""


def mine(
    pairs: Source,
    model: Teacher,
    output: str,
    *,
    corpus: Source | None = None,
    judge: Teacher | None = None,
    negatives: int = 7,
    depth: int = 100,
    skip_top: int = 0,
    absolute_margin: float | None = None,
    relative_margin: float | None = 0.05,
    margin_from: MarginFrom = "lowest",
    sampling: Sampling = "top",
    seed: int = 0,
    layout: Layout = "columns",
    scores: bool = False,
    rows_without: RowsWithout = "drop",
    device: str | None = None,
) -> MiningSummary:
    """Mine hard negatives for pairs and write them as Parquet.

    Args:
        pairs: Rows with a query and a document that answers it.
        model: Embeds queries and documents, each with its own prompt.
        output: Folder to write; must not exist yet.
        corpus: Rows with a text that may be a negative, besides the pairs' documents. A BEIR folder brings its own.
        judge: Another model, whose similarities decide about the margins.
        negatives: Most negatives of a row.
        depth: Candidates that are looked at, from the most similar on.
        skip_top: Candidates left out from the top of these.
        absolute_margin: By how much a negative must be less similar to the query than a positive; none for any.
        relative_margin: The same as a share of the positive's similarity; none for any.
        margin_from: Margins are taken from the lowest similarity of a query's documents, or from the row's own.
        sampling: The most similar candidates that are left, or random ones of them.
        seed: Seed of the random ones.
        layout: Columns negative, negative_2, ... or one column negatives of lists.
        scores: Whether to write the similarities of query and negatives too, as negative_scores.
        rows_without: Whether rows without any negative are dropped or kept; training needs at least one.
        device: Where the models compute and the search runs; by default a GPU where there is one.

    Returns:
        What was found and what was dropped.
    """
    rules = NegativeRules(negatives, depth, skip_top, absolute_margin, relative_margin, margin_from, sampling, seed)
    where = device or ("cuda" if torch.cuda.is_available() else "cpu")
    return mine_hard_negatives(
        pairs,
        model.to(where),
        output,
        rules=rules,
        corpus=corpus,
        judge=None if judge is None else judge.to(where),
        layout=layout,
        scores=scores,
        rows_without=rows_without,
        device=where,
    )


def mine_hard_negatives(
    pairs: Source,
    model: TeacherLike,
    output: str | Path,
    *,
    rules: NegativeRules | None = None,
    corpus: Source | None = None,
    judge: TeacherLike | None = None,
    layout: Layout = "columns",
    scores: bool = False,
    rows_without: RowsWithout = "drop",
    device: str = "cpu",
) -> MiningSummary:
    """Find documents that a model finds close to each query although they do not answer it, and write them as Parquet.

    The documents searched are those of the corpus and of the pairs. What answers a query in any row is a negative in
    none; nor is the query's own text. Texts that differ in white space or case alone are one text. The search is
    exact, over float16 vectors multiplied in float32, and documents that tie come in the order of the corpus: the same
    input gives the same rows. Vectors are kept in the cache folder, so that an interrupted run goes on where it stopped
    and another one with other rules starts with the search.

    ``output`` gets ``pairs.parquet``, the columns of the pairs and the negatives, most similar first; and
    ``mining.json`` with the settings, the fingerprints of models and rows, and the summary. It appears whole or not
    at all. Memory grows by 8 bytes for each row and each candidate of a query; texts and vectors stay on disk.

    Args:
        pairs: Rows with ``query`` and ``document``; other columns are kept.
        model: Embeds queries and documents in their roles.
        output: Folder to write; must not exist yet.
        rules: Which candidates may be negatives, and how many are taken.
        corpus: Rows with ``text``, besides the documents of the pairs; by default those that the pairs bring
            (:class:`WithCorpus`).
        judge: Another model, whose similarities decide about margins, and are the scores that are written.
        layout: ``"columns"``: ``negative``, ``negative_2``, ..., null where a row has fewer; ``"list"``: a column
            ``negatives``.
        scores: Whether to write the similarities as lists of float32, ``negative_scores``.
        rows_without: Whether rows without any negative are dropped or kept.
        device: Where the search runs.

    Returns:
        What was found and what was dropped.

    Raises:
        ValueError: If a column is missing, the output exists, a setting is unknown, or no row has a negative.
    """
    rules = rules or NegativeRules()
    output = Path(output).expanduser()
    _check_settings(output, layout, rows_without)
    rows = _checked(pairs.load())
    own = pairs if isinstance(pairs, WithCorpus) else None
    others = corpus.load() if corpus is not None else own.corpus() if own is not None else None
    if others is not None:
        others = _with_columns(others, ("text",), "corpus")
    settings: dict[str, Plain] = {
        "pairs": describe(pairs),
        "corpus": describe(corpus),
        "model": _described(model),
        "judge": None if judge is None else _described(judge),
        **asdict(rules),
        "layout": layout,
        "scores": scores,
        "rows_without": rows_without,
    }
    texts = search_texts(rows, others, None if own is None else own.relevant())
    found = find_candidates(texts, model, rules.depth, device)
    if judge is not None:
        found = judged(found, texts, judge)
    with atomic_folder(output) as folder:
        summary = write_mined_rows(
            folder / PAIRS_FILE, rows, texts, found, rules, layout=layout, scores=scores, rows_without=rows_without
        )
        told = {"settings": settings, "rows_fingerprint": rows._fingerprint, "summary": asdict(summary)}
        (folder / SUMMARY_FILE).write_text(json.dumps(told, indent=2) + "\n")
    return summary


# Checks


def _check_settings(output: Path, layout: str, rows_without: str) -> None:
    for name, value, known in (
        ("layout", layout, ("columns", "list")),
        ("rows_without", rows_without, ("drop", "keep")),
    ):
        if value not in known:
            raise ValueError(f"Got {name} {value!r}; need {' or '.join(known)}.")
    if output.exists():
        raise ValueError(f"Got output {str(output)!r}, which exists already. Name a new folder, or remove it first.")


def _checked(rows: "datasets.Dataset") -> "datasets.Dataset":
    rows = _with_columns(rows, ("query", "document"), "pairs")
    if not len(rows):
        raise ValueError("Got pairs without any rows; need at least one. Check the file or the split.")
    taken = [name for name in rows.column_names if name.startswith("negative")]
    if taken:
        raise ValueError(f"The pairs have a column {taken[0]!r} already. Rename it or leave it out, then mine again.")
    RowRules().apply(rows.select_columns(["query", "document"]), "pairs")  # an error at the first that is empty
    return rows


def _with_columns(rows: "datasets.Dataset", columns: Sequence[str], argument: str) -> "datasets.Dataset":
    for column in columns:
        if column not in rows.column_names:
            raise ValueError(
                f"Got {argument} with the columns {', '.join(rows.column_names) or 'none'}; need {column!r}."
                f"{did_you_mean(column, rows.column_names)} Tell the source which column it is."
            )
    return rows


def _described(model: TeacherLike) -> dict[str, Plain]:
    settings = describe(model) if isinstance(model, Rebuildable) else None
    return {"settings": settings, "fingerprint": model.fingerprint}
