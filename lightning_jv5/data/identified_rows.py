"""Rows that ids name, such as documents and judgements: each id once, as tables; what cannot be used is reported."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from lightning_jv5.data.bad_rows import BadRows
from lightning_jv5.data.source import did_you_mean

if TYPE_CHECKING:
    import pyarrow as pa

_ROWS_PER_TABLE = 1000

Identity = str | tuple[str, str]  # of a text its id, of a judgement those of its query and document
_Record = TypeVar("_Record")


class BadRecordError(Exception):
    """What is wrong with a record, without a full stop, and what to do about it."""

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(what)
        self.what, self.remedy = what, remedy


def identified_rows(
    records: Iterable[tuple[int, _Record]],
    parse: Callable[[_Record, int], tuple[Identity, dict[str, Any]] | None],
    schema: "pa.Schema",
    bad: BadRows,
    *,
    unit: str = "line",
) -> "Iterator[pa.Table]":
    """Yield rows as tables, some at a time, without those that are broken or repeat an id.

    Args:
        records: Number of each record, for messages, and the record.
        parse: From a record and its number to what may come only once and the row; None for a record without a row.
            Raises :class:`BadRecordError`.
        schema: Of the tables.
        bad: Is told of what is left out.
        unit: What a record is in messages: ``"line"`` or ``"row"``.

    Raises:
        ValueError: If there are no rows; or where ``bad`` raises.

    >>> import pyarrow as pa
    >>> schema = pa.schema({"id": pa.string()})
    >>> bad = BadRows("ids.txt", "skip", max_bad_share=1.0)
    >>> [table] = identified_rows([(1, "a"), (2, "a")], lambda line, _: (line, {"id": line}), schema, bad)
    >>> table.to_pylist(), bad.first
    ([{'id': 'a'}], "ids.txt, line 2: _id 'a' comes for the second time. Remove one of the two.")
    """
    import pyarrow as pa

    seen: set[int] = set()  # hashes: the ids themselves would take several times as much
    rows: list[dict[str, Any]] = []
    records_seen = kept = 0
    for number, record in records:
        try:
            parsed = parse(record, number)
        except BadRecordError as error:
            bad.report(f"{unit} {number}", error.what, error.remedy)
            records_seen += 1
            continue
        if parsed is None:
            continue
        records_seen += 1
        identity, row = parsed
        if hash(identity) in seen:
            bad.report(f"{unit} {number}", f"{_shown(identity)} comes for the second time", "Remove one of the two.")
            continue
        seen.add(hash(identity))
        kept += 1
        rows.append(row)
        if len(rows) == _ROWS_PER_TABLE:
            yield pa.Table.from_pylist(rows, schema)
            rows = []
    if not kept and not bad.count:
        raise ValueError(
            f"{bad.origin} holds no rows; need at least one. Is it the right file or split, and was it copied whole?"
        )
    bad.finish(records_seen)
    yield pa.Table.from_pylist(rows, schema)


def identified_text(
    record: Mapping[str, Any], fields: Sequence[str], group: str | None = None
) -> tuple[str, dict[str, Any]]:
    """Return the id of a query or document, and its row: ``id``, ``text`` and, if asked for, ``group``.

    Args:
        record: Has ``_id`` and the fields.
        fields: Strings to join by a space; a ``title`` may be missing.
        group: Field that names a group, as a string or a whole number, or null for none.

    Raises:
        BadRecordError: If one is missing or of another type.

    >>> identified_text({"_id": "d1", "title": "Foxes", "text": "are red"}, ["title", "text"])
    ('d1', {'id': 'd1', 'text': 'Foxes are red'})
    """
    values = {}
    for field in ("_id", *fields):
        value = record.get(field, "" if field == "title" else None)
        if not isinstance(value, str) or (field == "_id" and not value):
            remedy = f"Need a string{' with something in it' if field == '_id' else ''}."
            raise _bad_field(record, field, remedy)
        values[field] = value
    row: dict[str, Any] = {"id": values["_id"], "text": " ".join(values[field] for field in fields).strip()}
    if group is not None:
        value = record.get(group)
        if group not in record or not (value is None or isinstance(value, str | int)):
            raise _bad_field(record, group, "Need a string or a whole number that names a group, or null.")
        row["group"] = None if value is None else str(value)
    return values["_id"], row


def _bad_field(record: Mapping[str, Any], field: str, remedy: str) -> BadRecordError:
    if field in record:
        return BadRecordError(f"{field} is {record[field]!r:.40}", remedy)
    return BadRecordError(f"there is no {field}, but {', '.join(record)}", f"{remedy}{did_you_mean(field, record)}")


def _shown(identity: Identity) -> str:
    return f"_id {identity!r}" if isinstance(identity, str) else f"the judgement of {identity[0]!r}, {identity[1]!r}"
