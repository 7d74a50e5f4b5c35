"""Where rows come from: the contract of a data source, and the checks that all sources share."""

import difflib
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lightning_jv5.data.cache import cache_folder, fingerprint
from lightning_jv5.rebuildable import Rebuildable

if TYPE_CHECKING:
    import datasets

# What a row must have at least one set of; further columns (negatives, teacher vectors, ids) are passed through.
LAYOUTS = (("query", "document"), ("text1", "text2", "score"), ("text",))

_TEXTS = re.compile(r"query|document|text[12]?|negatives?(_\d+)?")


class Source(Rebuildable, ABC):
    """Rows for training or evaluation, under the column names that everything here uses.

    A source's ``load`` returns one of the layouts: ``query, document`` (and ``negative``, ``negative_2``, ... if there
    are mined ones), ``text1, text2, score``, ``text, label``, or ``text`` alone. Other columns are kept; precomputed
    teacher vectors are columns named after the text's own (``query_teacher``).

    >>> class Greetings(Source):
    ...     def load(self):
    ...         from datasets import Dataset
    ...         return Dataset.from_dict({"text": ["hello", "good evening"]})
    >>> len(Greetings().load())
    2
    """

    @abstractmethod
    def load(self) -> "datasets.Dataset":
        """Return the rows; cheap when called again, in this process or another."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return a hint at the nearest known name, as a sentence to append to an error; empty if none is near.

    >>> did_you_mean("qurey", ["query", "document"])
    " Did you mean 'query'?"
    """
    nearest = difflib.get_close_matches(name, sorted(known), n=1)
    return f" Did you mean {nearest[0]!r}?" if nearest else ""


def rename_columns(dataset: "datasets.Dataset", columns: Mapping[str, str], origin: str) -> "datasets.Dataset":
    """Give columns their canonical names.

    Args:
        dataset: The rows as they were read.
        columns: From our name (``query``, ``document``, ``text``, ...) to the data set's own.
        origin: Where the rows are from, for the errors.

    Returns:
        The same rows with the columns renamed.

    Raises:
        ValueError: If a column does not exist, is asked for twice, or its new name is taken; or if the result has none
            of the layouts of :class:`Source`.

    >>> from datasets import Dataset
    >>> rows = Dataset.from_dict({"question": ["why?"], "answer": ["because"]})
    >>> rename_columns(rows, {"query": "question", "document": "answer"}, "faq.jsonl").column_names
    ['query', 'document']
    """
    arrived: list[str] = dataset.column_names
    wanted = [name for layout in LAYOUTS for name in layout] + ["label"]
    for ours, theirs in columns.items():
        if theirs not in arrived:
            hint = did_you_mean(theirs, arrived)
            raise ValueError(
                f"{origin} has the columns {', '.join(arrived)}; columns={{{ours!r}: {theirs!r}}} needs a column "
                f"{theirs!r}.{hint} Name one that is there: columns={{our name: its name in the data}}."
            )
        if list(columns.values()).count(theirs) > 1:
            raise ValueError(f"{origin}: columns={dict(columns)!r} takes {theirs!r} twice; give each column one name.")
        if ours in arrived and ours not in columns.values():
            raise ValueError(
                f"{origin} already has a column {ours!r}, so {theirs!r} cannot be renamed to it. "
                f"Say where the other one goes: columns={{{ours!r}: {theirs!r}, 'another_name': {ours!r}}}."
            )
    renaming = {theirs: ours for ours, theirs in columns.items() if theirs != ours}
    if renaming:
        dataset = dataset.rename_columns(renaming)
    present: list[str] = dataset.column_names
    if not any(set(layout) <= set(present) for layout in LAYOUTS):
        hints = "".join(did_you_mean(name, wanted) for name in present if name not in wanted)
        layouts = " or ".join(" + ".join(layout) for layout in LAYOUTS)
        raise ValueError(
            f"{origin} has the columns {', '.join(present)}; need {layouts}."
            f"{hints} Say which is which: columns={{'query': ..., 'document': ...}}."
        )
    return dataset


def text_columns(dataset: "datasets.Dataset") -> list[str]:
    """Return the canonical columns that hold texts: those of the layouts, and mined negatives."""
    # not every name that starts so: negative_teacher and negative_teacher_scale are vectors
    return [name for name in dataset.column_names if _TEXTS.fullmatch(name)]


def check_texts(dataset: "datasets.Dataset", columns: Sequence[str], origin: str) -> None:
    """Check that every text is a string with something in it; once per data set, as the result is remembered.

    Args:
        dataset: The rows.
        columns: Which columns hold texts, or lists of texts.
        origin: Where the rows are from, for the errors.

    Raises:
        ValueError: If a text is empty, only white space, missing (None), or no string; says in which row (the first is
            row 0).
    """
    passed = cache_folder() / "checked" / fingerprint("texts", dataset._fingerprint, list(columns))
    if passed.exists():
        return
    for column in columns:
        _check_column(dataset, column, origin)
    passed.parent.mkdir(parents=True, exist_ok=True)
    passed.touch()


def _check_column(dataset: "datasets.Dataset", column: str, origin: str) -> None:
    import pyarrow as pa
    import pyarrow.compute as pc

    plain = dataset.with_format("arrow")
    step = 100_000  # rows looked at together, so that memory does not grow with their number
    for start in range(0, len(plain), step):
        texts: Any = plain[start : start + step][column].combine_chunks()
        rows: Any = pa.array(range(start, start + len(texts)), pa.int64())
        if pa.types.is_list(texts.type) or pa.types.is_large_list(texts.type):
            rows, texts = rows.take(pc.list_parent_indices(texts)), pc.list_flatten(texts)
        if not len(texts):
            continue
        if not (pa.types.is_string(texts.type) or pa.types.is_large_string(texts.type)):
            raise ValueError(
                f"{origin}, row {rows[0]}: column {column!r} holds {texts[0].as_py()!r} (type {texts.type}), which is "
                "no text. Name a column of texts, or write the values as strings."
            )
        blank = pc.or_(pc.equal(pc.binary_length(texts), 0), pc.utf8_is_space(texts))
        found = pc.index(pc.fill_null(blank, True), True).as_py()
        if found >= 0:
            raise ValueError(
                f"{origin}, row {rows[found]} (the first is 0): column {column!r} holds {texts[found].as_py()!r}; "
                "every text needs something in it. Remove the row or fill it in."
            )


def first_rows(dataset: "datasets.Dataset", rows: int | None, origin: str) -> "datasets.Dataset":
    """Return the first rows, or all of them for None.

    Raises:
        ValueError: If there are fewer rows than asked for.
    """
    if rows is None:
        return dataset
    if not 0 < rows <= len(dataset):
        raise ValueError(
            f"Got rows={rows}, but {origin} has {len(dataset)} rows; ask for 1 to {len(dataset)}, or None for all."
        )
    return dataset.select(range(rows))
