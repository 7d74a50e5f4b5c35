from typing import Any

import pyarrow as pa
import pytest

from lightning_jv5.data.bad_rows import BadRows
from lightning_jv5.data.identified_rows import BadRecordError, identified_rows, identified_text
from lightning_jv5.data.row_checks import row_number

SCHEMA = pa.schema({"id": pa.string(), "text": pa.string()})


def rows_of(records: list[Any], bad: BadRows) -> list[dict[str, Any]]:
    def parse(record: Any, number: int) -> Any:
        return None if record is None else identified_text(record, ["text"])

    tables = identified_rows(enumerate(records), parse, SCHEMA, bad, place=row_number)
    return [row for table in tables for row in table.to_pylist()]


def test_rows_come_in_order_over_tables_and_records_without_a_row_are_passed_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("lightning_jv5.data.identified_rows._ROWS_PER_TABLE", 3)
    records = [{"_id": f"{row}", "text": "a"} for row in range(8)]
    assert [row["id"] for row in rows_of([None, *records], BadRows("texts"))] == [f"{row}" for row in range(8)]


def test_repeated_and_broken_rows_are_reported_with_their_place() -> None:
    records = [{"_id": "a", "text": "a"}, {"_id": "a", "text": "b"}, {"_id": "c", "txt": "c"}]
    with pytest.raises(ValueError, match=r"texts, row 1 \(the first is 0\): _id 'a' comes for the second time"):
        rows_of(records, BadRows("texts"))
    bad = BadRows("texts", "skip", max_bad_share=0.7)
    assert rows_of(records, bad) == [{"id": "a", "text": "a"}]
    assert bad.count == 2
    with pytest.raises(ValueError, match=r"2 of 3 rows \(66\.67%\) cannot be used"):
        rows_of(records, BadRows("texts", "skip"))


def test_no_rows_are_refused() -> None:
    with pytest.raises(ValueError, match=r"texts holds no rows; need at least one\. Is it the right file or split"):
        rows_of([None], BadRows("texts"))


@pytest.mark.parametrize(
    ("record", "message", "remedy"),
    [
        ({"text": "a"}, "there is no _id, but text", "Need a string with something in it"),
        ({"_id": "", "text": "a"}, "_id is ''", "with something in it"),
        ({"_id": "x", "title": 1, "text": "a"}, "title is 1", "Need a string"),
        ({"_id": "x", "txt": "a", "lang": "de"}, "there is no text, but _id, txt, lang", "Did you mean 'txt'"),
        ({"_id": "x", "text": "a", "langs": "de"}, "there is no lang, but _id, text, langs", "Did you mean 'langs'"),
        ({"_id": "x", "text": "a", "lang": 0.5}, "lang is 0.5", "a string or a whole number"),
    ],
)
def test_a_text_that_cannot_be_used_says_why(record: dict[str, Any], message: str, remedy: str) -> None:
    with pytest.raises(BadRecordError, match=message) as raised:
        identified_text(record, ["title", "text"], "lang")
    assert remedy in raised.value.remedy


@pytest.mark.parametrize(("group", "found"), [("de", "de"), (7, "7"), (None, None)])
def test_groups_become_strings(group: Any, found: str | None) -> None:
    row = {"id": "x", "text": "b a", "group": found}
    assert identified_text({"_id": "x", "title": "b", "text": "a", "g": group}, ["title", "text"], "g") == ("x", row)
