"""Which rows of a table can be used: texts with something in them, scores and labels, vectors of one length."""

import functools
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lightning_jv5.data.bad_rows import BadRows

if TYPE_CHECKING:
    import pyarrow as pa

TEXTS = ("query", "document", "text", "text1", "text2")
NEGATIVE_LIST = "negatives"
VECTORS_SUFFIX = "_teacher"

Place = Callable[[int], str]
_Mask = NDArray[np.bool_]


def negative_columns(names: list[str]) -> list[str]:
    """Return the columns of negatives, one for each row: ``negative``, ``negative_2``, ...; in the order of numbers.

    >>> negative_columns(["negative_10", "query", "negative", "negative_2", "negative_teacher"])
    ['negative', 'negative_2', 'negative_10']
    """
    numbered = {name: name.removeprefix("negative_") for name in names if name.startswith("negative_")}
    found = {name: int(number) for name, number in numbered.items() if number.isdecimal()}
    return [*(["negative"] if "negative" in names else []), *sorted(found, key=found.__getitem__)]


def text_columns(names: list[str]) -> list[str]:
    """Return the canonical columns that hold texts, or lists of texts.

    >>> text_columns(["id", "document", "query", "negatives", "query_teacher"])
    ['document', 'query', 'negatives']
    """
    one_by_one = set(negative_columns(names))
    return [name for name in names if name in TEXTS or name in one_by_one or name == NEGATIVE_LIST]


def row_number(row: int) -> str:
    """Name a row in a message, as :func:`usable_rows` does unless told otherwise."""
    return f"row {row} (the first is 0)"


def place_among(place: Place, rows: Sequence[int] | NDArray[np.int64]) -> Place:
    """Return how to name a row of a selection: as ``place`` names the row of the whole that it was.

    >>> place_among(row_number, [7, 9])(1)
    'row 9 (the first is 0)'
    """
    return functools.partial(_place_among, place, rows)


def _place_among(place: Place, rows: Any, row: int) -> str:
    return place(int(rows[row]))


def usable_rows(
    table: "pa.Table", bad: BadRows, place: Place = row_number, *, finite_vectors: bool = False
) -> "pa.Table":
    """Return the rows that can be used, and report the others.

    Args:
        table: Rows under canonical names.
        bad: Is told of the rows that cannot be used; raises at the first, or counts.
        place: How messages name a row, from its number in ``table``.
        finite_vectors: Whether to look at every number of the vectors; otherwise that is done when they are read.

    Raises:
        ValueError: If a column is of another type than its name asks for; or where ``bad`` raises.
    """
    import pyarrow as pa

    dropped = np.zeros(len(table), dtype=bool)
    for complaint in _complaints(table, bad.origin, place, finite_vectors):
        new = complaint.rows & ~dropped
        if new.any():
            first = int(new.argmax())
            what = complaint.what.format(value=_shown(table[complaint.column][first].as_py()))
            bad.report(place(first), f"column {complaint.column!r} {what}", complaint.remedy, int(new.sum()))
            dropped |= new
    kept = table.filter(pa.array(~dropped)) if dropped.any() else table
    for column in text_columns(kept.column_names):
        if _is_json(kept[column].type):  # a number between the texts made it so, and is gone now
            stored = kept[column].combine_chunks().storage.to_pylist()
            texts = pa.array([None if text is None else json.loads(text) for text in stored], pa.string())
            kept = kept.set_column(kept.column_names.index(column), column, texts)
    return kept


@dataclass
class _Complaint:
    """What is wrong with some rows. ``{value}`` in ``what`` stands for what the first of them holds."""

    column: str
    rows: _Mask
    what: str
    remedy: str


def _complaints(table: Any, origin: str, place: Place, finite_vectors: bool) -> Iterator[_Complaint]:
    names: list[str] = table.column_names
    if "positive" in names and "negative" in names and is_list(table["negative"].type):
        names = [name for name in names if name not in ("positive", "negative")]  # to rerank; lists may be empty
    for column in names:
        array = table[column].combine_chunks()
        if column in text_columns(names):
            yield from _about_texts(column, array, optional=column in negative_columns(names), where=(origin, place))
        elif column == "score" and "text1" in names:
            yield _about_scores(array, (origin, place))
        elif column == "label" and ("text" in names or "text1" in names):
            yield _about_labels(array, (origin, place))
        elif column.endswith(VECTORS_SUFFIX):
            yield from _about_vectors(column, array, finite_vectors, (origin, place))
    if negatives := negative_columns(names):
        none = np.logical_and.reduce([_numpy(table[name].combine_chunks().is_null()) for name in negatives])
        yield _Complaint(negatives[0], none, "holds {value}, and the row has no other negative", "Give it one.")


_Where = tuple[str, Place]


def _about_texts(column: str, array: Any, *, optional: bool, where: _Where) -> Iterator[_Complaint]:
    import pyarrow.compute as pc

    rows = len(array)
    parents = np.arange(rows)
    if column == NEGATIVE_LIST:
        if not is_list(array.type):
            raise _wrong_type(
                column, array, "a list of texts; name columns of one text each negative, negative_2", where
            )
        none = _numpy(pc.fill_null(pc.equal(pc.list_value_length(array), 0), True))
        yield _Complaint(column, none, "holds {value}, no negative", "Give the row at least one.")
        parents, array = _numpy(pc.list_parent_indices(array)), pc.list_flatten(array)
    missing = _numpy(array.is_null())
    no_text, blank = _not_texts(column, array, where)
    yield _Complaint(
        column, _of_rows(no_text, parents, rows), "holds {value}, which is no text", "Write it as a string."
    )
    empty = blank if optional else blank | missing
    yield _Complaint(
        column, _of_rows(empty, parents, rows), "holds {value}; every text needs something in it", "Fill it in."
    )


def _not_texts(column: str, array: Any, where: _Where) -> tuple[_Mask, _Mask]:
    """Return which elements are something else than texts, and which are texts with nothing in them."""
    import pyarrow as pa
    import pyarrow.compute as pc

    nothing = np.zeros(len(array), dtype=bool)
    if not len(array) or pa.types.is_null(array.type):
        return nothing, nothing
    if _is_json(array.type):
        no_text = ~_numpy(pc.fill_null(pc.starts_with(array.storage, '"'), True))
        inside = pc.utf8_trim_whitespace(pc.utf8_trim(array.storage, '"'))
        return no_text, _numpy(pc.fill_null(pc.equal(pc.binary_length(inside), 0), False)) & ~no_text
    if not (pa.types.is_string(array.type) or pa.types.is_large_string(array.type)):
        raise _wrong_type(column, array, "a text; name another column, or write the values as strings", where)
    blank = pc.or_(pc.equal(pc.binary_length(array), 0), pc.utf8_is_space(array))
    return nothing, _numpy(pc.fill_null(blank, False))


def _about_scores(array: Any, where: _Where) -> _Complaint:
    import pyarrow as pa
    import pyarrow.compute as pc

    known = (pa.types.is_integer, pa.types.is_floating, pa.types.is_null)
    if not any(is_known(array.type) for is_known in known):
        raise _wrong_type("score", array, "a number; name another column, or write the values as numbers", where)
    fine = pc.is_finite(array.cast(pa.float64()))
    return _Complaint("score", ~_numpy(pc.fill_null(fine, False)), "holds {value}; a score is a number", "Fill it in.")


def _about_labels(array: Any, where: _Where) -> _Complaint:
    import pyarrow as pa
    import pyarrow.compute as pc

    values = array.type.value_type if is_list(array.type) else array.type
    known = (
        *(pa.types.is_integer, pa.types.is_boolean, pa.types.is_null),
        *(pa.types.is_string, pa.types.is_large_string),
    )
    if not any(is_known(values) for is_known in known):
        raise _wrong_type("label", array, "a whole number or a string, or a list of them", where)
    missing = _numpy(array.is_null())
    if is_list(array.type):
        missing = missing | _numpy(pc.fill_null(pc.equal(pc.list_value_length(array), 0), True))
    return _Complaint("label", missing, "holds {value}; the label is missing", "Fill it in.")


def _about_vectors(column: str, array: Any, finite: bool, where: _Where) -> Iterator[_Complaint]:
    import pyarrow as pa
    import pyarrow.compute as pc

    rows, parents = len(array), np.arange(len(array))
    if not is_list(array.type):
        raise _wrong_type(column, array, "a vector, a list of numbers; give such a column another name", where)
    if is_list(array.type.value_type):  # a list of vectors: one for each of a row's negatives
        parents, array = _numpy(pc.list_parent_indices(array)), pc.list_flatten(array)
    wrong = _numpy(array.is_null())
    if pa.types.is_fixed_size_list(array.type):
        wanted = array.type.list_size
    else:
        lengths = _numpy(pc.fill_null(pc.list_value_length(array), -1))
        wanted = int(np.bincount(lengths[~wrong]).argmax()) if not wrong.all() else 0  # as most are
        wrong = lengths != wanted
    remedy = "Compute it again."
    what = f"holds a vector that is missing or has not {wanted} numbers, as the others have"
    yield _Complaint(column, _of_rows(wrong, parents, rows), what, remedy)
    if finite:
        numbers = _numpy(pc.list_flatten(array)).astype(np.float32)
        vectors = _of_rows(~np.isfinite(numbers), _numpy(pc.list_parent_indices(array)), len(array))
        yield _Complaint(column, _of_rows(vectors, parents, rows), "holds a vector with NaN or infinity", remedy)


def _wrong_type(column: str, array: Any, wanted: str, where: _Where) -> ValueError:
    origin, place = where
    value = _shown(array[0].as_py()) if len(array) else "nothing"
    return ValueError(f"{origin}, {place(0)}: column {column!r} holds {value} (type {array.type}); need {wanted}.")


def _of_rows(elements: _Mask, parents: Any, rows: int) -> _Mask:
    """Return which rows have such an element."""
    return np.bincount(parents[elements], minlength=rows).astype(bool)


def _numpy(array: Any) -> Any:
    return array.to_numpy(zero_copy_only=False)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _is_json(kind: Any) -> bool:
    return str(kind).startswith("extension<arrow.json")


def is_list(kind: Any) -> bool:
    """Return whether an Arrow type is a list, of any kind."""
    import pyarrow as pa

    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))
