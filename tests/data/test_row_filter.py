from typing import Any

import pyarrow as pa
import pytest

from lightning_jv5.data.row_filter import RowFilter

ROWS: list[dict[str, Any]] = [
    {"text": "a", "score": 5.0, "language": "en", "tags": ["x"]},
    {"text": "bcd", "score": 2.0, "language": "de", "tags": []},
    {"text": "ef", "score": None, "language": None, "tags": None},
    {"text": "", "score": -1.0, "language": "fr", "tags": ["x", "y"]},
]


@pytest.mark.parametrize(
    "expression",
    [
        "score > 3",
        "score >= 2 and language == 'de'",
        "score < 0 or language in ['en', 'de']",
        "language not in ('en', 'fr')",
        "not score > 3",
        "not (score > 3 or text == 'bcd')",
        "-2 < score <= 2",
        "len(text) > 1",
        "len(tags) == 1",
        "score != -1",
        "score is None",
        "language is not None and len(text) < 3",
        "1 < 2",
    ],
)
def test_a_filter_keeps_what_python_would(expression: str) -> None:
    def python(row: dict[str, Any]) -> bool:
        try:
            kept: bool = eval(expression, {"len": len}, row)
        except TypeError:  # a comparison with None
            return False
        # None == 'de' and None in [...] are answers in Python, but nothing is known of a missing value
        missing = any(row[name] is None for name in row if name in expression)
        return kept and (not missing or "None" in expression)

    kept = RowFilter(expression)(pa.Table.from_pylist(ROWS), "demo")
    assert kept.to_pylist() == [python(row) for row in ROWS]


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("score >", "Got filter 'score >', which cannot be read: invalid syntax"),
        ("score", "in which 'score' is not understood. Use column names"),
        ("__import__('os').system('true') == 0", "is not understood"),
        ("text.startswith('a') == 1", "is not understood"),
        ("score + 1 > 2", r"'score \+ 1' is not understood"),
        ("language in languages", "'languages' is not understood"),
        ("language is 'de'", "''de'' is not understood|'de'.* is not understood"),
        ("len(text, 2) > 1", "is not understood"),
    ],
)
def test_what_is_no_condition_is_refused(expression: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RowFilter(expression)


def test_an_unknown_column_names_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"demo has the columns text, score, .* needs 'scores'\. Did you mean 'score'"):
        RowFilter("scores > 1")(pa.Table.from_pylist(ROWS), "demo")


def test_types_that_do_not_compare_are_named() -> None:
    with pytest.raises(ValueError, match=r"demo: the filter .* does not fit the columns' types \(text: string"):
        RowFilter("text > 1")(pa.Table.from_pylist(ROWS), "demo")
