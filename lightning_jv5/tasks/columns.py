"""The columns of a source as an evaluation task needs them: texts, scores, labels."""

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import datasets


def column(rows: "datasets.Dataset", name: str, argument: str, *, may_be_empty: bool = False) -> list[Any]:
    """Return a column.

    Args:
        rows: The rows of a source.
        name: Canonical name of the column.
        argument: What the task calls the source, for the errors.
        may_be_empty: Whether there may be no rows.

    Raises:
        ValueError: If there is no such column, or there are no rows.

    >>> from datasets import Dataset
    >>> column(Dataset.from_dict({"text": ["a", "b"]}), "label", "texts")
    Traceback (most recent call last):
        ...
    ValueError: Got texts with the columns text; need 'label'. Tell the source which column it is.
    """
    if name not in rows.column_names:
        raise ValueError(
            f"Got {argument} with the columns {', '.join(rows.column_names) or 'none'}; need {name!r}. "
            "Tell the source which column it is."
        )
    if not may_be_empty and not len(rows):
        raise ValueError(f"Got {argument} without any rows; need at least one. Check the file or the split.")
    return list(rows[name][:])  # the slice: row by row is 30 times slower


def text_column(rows: "datasets.Dataset", name: str, argument: str, *, may_be_empty: bool = False) -> list[str]:
    """Return a column of texts, empty where there is none; otherwise as :func:`column`."""
    return [text or "" for text in column(rows, name, argument, may_be_empty=may_be_empty)]


def score_column(rows: "datasets.Dataset", argument: str) -> list[float]:
    """Return the column ``score``.

    Raises:
        ValueError: As :func:`column`; or if a score is not a finite number.
    """
    scores = column(rows, "score", argument)
    for row, score in enumerate(scores):
        if isinstance(score, bool) or not isinstance(score, int | float) or not math.isfinite(score):
            raise ValueError(
                f"Got {argument} with the score {score!r} in row {row} (the first is 0); need a finite number. "
                "Correct the row, or tell the source which column holds the scores."
            )
    return [float(score) for score in scores]


def label_column(rows: "datasets.Dataset", argument: str) -> list[str | int]:
    """Return the column ``label``.

    Raises:
        ValueError: As :func:`column`; or if a label is neither a string nor a whole number.
    """
    labels = column(rows, "label", argument)
    for row, label in enumerate(labels):
        if not isinstance(label, str | int):
            raise ValueError(
                f"Got {argument} with the label {label!r} in row {row} (the first is 0); need a string or a whole "
                "number, one for each text. Correct the row, or leave it out."
            )
    return labels


def truth_column(rows: "datasets.Dataset", argument: str) -> list[bool]:
    """Return the column ``label`` of a task that asks yes or no.

    Raises:
        ValueError: As :func:`column`; or if a label is neither 0 or 1, nor false or true.
    """
    labels = column(rows, "label", argument)
    for row, label in enumerate(labels):
        if not isinstance(label, int) or label not in (0, 1):
            raise ValueError(
                f"Got {argument} with the label {label!r} in row {row} (the first is 0); need 0 or 1 (or false or "
                "true), where 1 is a pair that belongs together. Correct the row, or write labels so."
            )
    return [bool(label) for label in labels]


def group_column(rows: "datasets.Dataset", name: str, argument: str) -> list[str | None]:
    """Return a column whose values group the rows, as strings; None for a row in no group.

    Raises:
        ValueError: As :func:`column`; or if a value is neither a string, nor a whole number, nor missing.

    >>> from datasets import Dataset
    >>> group_column(Dataset.from_dict({"lang": ["de", None, "en"]}), "lang", "pairs")
    ['de', None, 'en']
    """
    values = column(rows, name, argument)
    for row, value in enumerate(values):
        if value is not None and not isinstance(value, str | int):
            raise ValueError(
                f"Got {argument} with {name}={value!r} in row {row} (the first is 0); need a string or a whole number "
                "that names the row's group. Name another column as group, or write its values so."
            )
    return [None if value is None else str(value) for value in values]


def rows_of_distinct(texts: Iterable[str]) -> dict[str, int]:
    """Number the different texts, in the order in which they first come.

    >>> rows_of_distinct(["a", "b", "a", "c"])
    {'a': 0, 'b': 1, 'c': 2}
    """
    return {text: row for row, text in enumerate(dict.fromkeys(texts))}
