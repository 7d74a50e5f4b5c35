import json
import logging
from pathlib import Path
from typing import Any

import datasets
import pytest

from lightning_jv5.data import row_rules
from lightning_jv5.data.row_rules import RowRules


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LIGHTNING_JV5_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(row_rules, "_ROWS_PER_BLOCK", 4)


ROWS: list[dict[str, Any]] = [
    {"question": f"q{row}", "document": f"d{row}", "language": ("en", "de")[row % 2]} for row in range(12)
]
COLUMNS = {"query": "question"}


def dataset(*bad: int) -> datasets.Dataset:
    """Twelve pairs, of which some have no document."""
    return datasets.Dataset.from_list(
        [row | ({"document": ""} if number in bad else {}) for number, row in enumerate(ROWS)]
    )


def queries(rows: Any) -> list[str]:
    return [row["query"] for row in rows]


def streamed(rules: RowRules, *bad: int) -> list[str]:
    stream = rules.apply_stream(dataset(*bad).to_iterable_dataset(), "faq")
    return [query.as_py() for table in stream.iter(batch_size=5) for query in table["query"]]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, range(12)),
        ({"rows": 5}, range(5)),
        ({"filter": "language == 'de'"}, range(1, 12, 2)),
        ({"filter": "language == 'de'", "rows": 3}, range(1, 6, 2)),
        ({"filter": "query in ['q1', 'q10']"}, (1, 10)),
    ],
)
def test_rows_that_meet_the_condition_are_kept_in_order(settings: dict[str, Any], expected: Any) -> None:
    rules = RowRules(COLUMNS, **settings)
    wanted = [f"q{row}" for row in expected]
    assert queries(rules.apply(dataset(), "faq")) == wanted
    assert streamed(rules) == wanted


def test_bad_rows_are_skipped_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    rules = RowRules(COLUMNS, on_bad_row="skip", max_bad_share=0.2, rows=9)
    with caplog.at_level(logging.WARNING):
        rows = rules.apply(dataset(1, 6), "faq")
    assert queries(rows) == streamed(rules, 1, 6) == [f"q{row}" for row in (0, 2, 3, 4, 5, 7, 8, 9, 10)]
    assert "faq: skipped 2 of 12 rows (16.67%). The first: faq, row 1 (the first is 0)" in caplog.text
    assert rows._fingerprint == rules.apply(dataset(1, 6), "faq")._fingerprint


@pytest.mark.parametrize("settings", [{}, {"filter": "language == 'en'"}])
def test_the_first_bad_row_is_an_error_with_its_number(settings: dict[str, Any]) -> None:
    for load in (lambda rules: rules.apply(dataset(6), "faq"), lambda rules: streamed(rules, 6)):
        with pytest.raises(ValueError, match=r"faq, row 6 \(the first is 0\): column 'document' holds ''"):
            load(RowRules(COLUMNS, **settings))


@pytest.mark.parametrize("columns", [COLUMNS, {"query": "question", "answer": "document"}, {"document": "question"}])
def test_a_stream_has_the_columns_of_the_rows(columns: dict[str, str]) -> None:
    given = dataset()
    if "answer" in columns:
        given = given.add_column("text", given["question"][:])
    if "query" not in columns:
        given = given.rename_column("document", "query")
    rules = RowRules(columns)
    [table] = rules.apply_stream(given.to_iterable_dataset(), "faq").iter(batch_size=100)
    assert table.to_pylist() == rules.apply(given, "faq").to_list()


def test_a_bad_row_that_the_filter_leaves_out_is_no_matter() -> None:
    assert len(RowRules(COLUMNS, filter="language == 'de'").apply(dataset(6), "faq")) == 6


def test_too_many_bad_rows_are_an_error() -> None:
    rules = RowRules(COLUMNS, on_bad_row="skip", max_bad_share=0.2)
    with pytest.raises(ValueError, match=r"faq: 3 of 12 rows \(25.00%\) cannot be used; max_bad_share allows 20.00%"):
        rules.apply(dataset(1, 6, 7), "faq")


def test_what_was_skipped_is_said_again_in_another_run_and_once_in_one(caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(2):  # two processes, or two runs
        caplog.clear()
        rules = RowRules(COLUMNS, on_bad_row="skip", max_bad_share=0.2)
        for _ in range(2):
            rules.apply(dataset(1, 6), "faq")
        assert caplog.text.count("faq: skipped 2 of 12 rows (16.67%). The first: faq, row 1 (the first is 0)") == 1


def test_what_a_stream_skips_is_said_and_bounded_also_in_a_small_one(caplog: pytest.LogCaptureFixture) -> None:
    assert len(streamed(RowRules(COLUMNS, on_bad_row="skip", max_bad_share=0.002), 1, 6)) == 10
    assert "faq: skipped 2 of 12 rows (16.67%)" in caplog.text
    with pytest.raises(ValueError, match=r"faq: 2 of 12 rows \(16.67%\) cannot be used; max_bad_share allows 0.10%"):
        streamed(RowRules(COLUMNS, on_bad_row="skip", max_bad_share=0.001), 1, 6)


def test_no_row_left_is_an_error() -> None:
    with pytest.raises(ValueError, match="faq: none of 12 rows passes the filter \"language == 'fr'\""):
        RowRules(COLUMNS, filter="language == 'fr'").apply(dataset(), "faq")


def test_fewer_rows_than_asked_for_are_an_error() -> None:
    with pytest.raises(ValueError, match="Got rows=7, but faq has 6 rows"):
        RowRules(COLUMNS, filter="language == 'de'", rows=7).apply(dataset(), "faq")


def test_an_empty_stream_is_an_error() -> None:
    empty = datasets.IterableDataset.from_generator(lambda: iter(()))
    with pytest.raises(ValueError, match="faq has no rows; check its files"):
        RowRules().apply_stream(empty, "faq")


def test_columns_of_a_stream_are_checked_before_it_is_read() -> None:
    with pytest.raises(ValueError, match="faq has the columns question, document, language; need"):
        RowRules().apply_stream(dataset().to_iterable_dataset(), "faq")


def test_rows_are_checked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    rules = RowRules(COLUMNS, filter="language == 'de'")
    first = rules.apply(dataset(), "faq")
    monkeypatch.setattr(RowRules, "_check", None)
    assert rules.apply(dataset(), "faq").to_list() == first.to_list()


@pytest.mark.parametrize("position", range(3))
def test_a_stream_goes_on_where_its_state_says(position: int) -> None:
    rules = RowRules(COLUMNS, on_bad_row="skip", max_bad_share=0.5)
    stream = rules.apply_stream(dataset(1, 6).to_iterable_dataset(num_shards=3), "faq")
    batches, states = [], []
    for table in stream.iter(batch_size=3):
        batches.append(table["query"].to_pylist())
        states.append(json.loads(json.dumps(stream.state_dict())))
    resumed = rules.apply_stream(dataset(1, 6).to_iterable_dataset(num_shards=3), "faq")
    resumed.load_state_dict(states[position])
    assert [table["query"].to_pylist() for table in resumed.iter(batch_size=3)] == batches[position + 1 :]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"on_bad_row": "drop"}, "Got on_bad_row 'drop'"),
        ({"max_bad_share": -1}, "Got max_bad_share -1"),
        ({"filter": "import os"}, "Got filter 'import os', which cannot be read"),
    ],
)
def test_arguments_are_checked(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RowRules(**settings)
