import math
from typing import Any

import pyarrow as pa
import pytest

from lightning_jv5.data.bad_rows import BadRows
from lightning_jv5.data.row_checks import negative_columns, text_columns, usable_rows

PAIR = {"query": ["a", "b", "c"], "document": ["d", "e", "f"]}
F16 = pa.float16()


def kept(table: pa.Table, **settings: Any) -> list[dict[str, Any]]:
    """The rows that are left where bad ones are skipped."""
    rows: list[dict[str, Any]] = usable_rows(table, BadRows("faq", "skip", 1.0), **settings).to_pylist()
    return rows


def column(name: str, values: list[Any], kind: Any = None) -> pa.Table:
    """Three fine pairs with one more column; a score and a label have the texts that they are about."""
    about = {"score": {"text1": PAIR["query"], "text2": PAIR["document"]}, "label": {"text": PAIR["query"]}}
    return pa.table({**PAIR, **about.get(name, {}), name: pa.array(values, kind)})


BAD = [
    (column("negative", ["n", "", "m"]), r"'negative' holds ''; every text needs something in it\. Fill it in"),
    (column("negative", ["n", None, "m"]), "'negative' holds None, and the row has no other negative"),
    (column("negatives", [["n"], [], ["m"]]), r"'negatives' holds \[\], no negative\. Give the row at least one"),
    (column("negatives", [["n"], None, ["m"]]), "'negatives' holds None, no negative"),
    (column("negatives", [["n"], ["o", " "], ["m"]]), "'negatives' holds .*; every text needs something in it"),
    (column("negatives", [["n"], ["o", None], ["m"]]), "'negatives' holds .*; every text needs something in it"),
    (column("score", [1.0, None, 2.0]), r"'score' holds None; a score is a number\. Fill it in"),
    (column("score", [1.0, math.nan, 2.0]), "'score' holds nan; a score is a number"),
    (column("label", ["x", None, "y"]), "'label' holds None; the label is missing"),
    (column("label", [[1], [], [2, 3]]), r"'label' holds \[\]; the label is missing"),
    (column("query_teacher", [[1.0, 2.0], [1.0], [3.0, 4.0]]), "'query_teacher' holds a vector that .* has not 2 num"),
    (column("query_teacher", [[1.0, 2.0], None, [3.0, 4.0]]), "holds a vector that is missing or has not 2 numbers"),
    (column("query_teacher", [[1, 2], None, [3, 4]], pa.list_(F16, 2)), "holds a vector that is missing"),
    (
        column("negatives_teacher", [[[1, 2]], [[1, 2], None], [[3, 4]]], pa.list_(pa.list_(F16, 2))),
        "holds a vector that is missing",
    ),
    (pa.table({**PAIR, "query": ["a", "", "c"]}), "'query' holds ''"),
    (pa.table({**PAIR, "query": ["a", " \n", "c"]}), "'query' holds ' .n'"),
    (pa.table({**PAIR, "document": pa.array(["a", None, "c"])}), "'document' holds None"),
    (
        pa.table({**PAIR, "query": pa.array(['"a"', "5", '"c"'], pa.json_(pa.string()))}),
        r"'query' holds '?5'?, which is no text\. Write it as a string",
    ),
    (pa.table({**PAIR, "query": pa.array(['"a"', '" "', '"c"'], pa.json_(pa.string()))}), "every text needs something"),
]


@pytest.mark.parametrize(("table", "message"), BAD)
def test_a_bad_row_is_named(table: pa.Table, message: str) -> None:
    with pytest.raises(ValueError, match=rf"faq, row 1 \(the first is 0\): column .*{message}.* on_bad_row: skip"):
        usable_rows(table, BadRows("faq"))


@pytest.mark.parametrize(("table", "message"), BAD)
def test_a_bad_row_can_be_skipped(table: pa.Table, message: str) -> None:
    rows = kept(table)
    assert [row["document"] for row in rows] == [table["document"][row].as_py() for row in (0, 2)]
    assert [row["query"] for row in rows] == ["a", "c"]


def test_fine_rows_of_every_kind_stay() -> None:
    table = pa.table(
        {
            **PAIR,
            "negative": ["n", None, None],
            "negative_2": [None, "o", "p"],
            "negatives": [["q"], ["r", "s"], ["t"]],
            "score": [1, 0, 5],
            "label": [["x"], ["y", "z"], ["x"]],
            "query_teacher": pa.array([[1, 2]] * 3, pa.list_(F16, 2)),
            "negatives_teacher": pa.array([[[1, 2]], [[1, 2], [3, 4]], [[5, 6]]], pa.list_(pa.list_(F16, 2))),
            "id": [None, None, None],
        }
    )
    assert usable_rows(table, BadRows("faq"), finite_vectors=True) is table


@pytest.mark.parametrize("name", ["score", "label"])
def test_beside_a_query_and_a_document_a_score_or_a_label_may_be_anything(name: str) -> None:
    table = pa.table({**PAIR, name: [0.5, None, 1.5]})
    assert usable_rows(table, BadRows("faq")) is table


def test_rows_are_counted_once_whatever_is_wrong_with_them() -> None:
    bad = BadRows("faq", "skip", 1.0)
    table = pa.table({"text1": ["", None, "c"], "text2": ["", "e", "f"], "score": [None, 1.0, 2.0]})
    assert len(usable_rows(table, bad)) == 1
    assert bad.count == 2


@pytest.mark.parametrize("number", [math.nan, math.inf])
@pytest.mark.parametrize("kind", [pa.list_(pa.float32()), pa.list_(F16, 2)])
def test_vectors_that_are_not_finite_are_found_where_that_is_asked_for(number: float, kind: Any) -> None:
    table = column("query_teacher", [[1, 2], [3, 4], [number, 0]], kind)
    assert len(kept(table)) == 3
    assert len(kept(table, finite_vectors=True)) == 2
    with pytest.raises(ValueError, match=r"row 2 .*holds a vector with NaN or infinity\. Compute it again"):
        usable_rows(table, BadRows("faq"), finite_vectors=True)


@pytest.mark.parametrize(
    ("name", "values", "wanted"),
    [
        ("query", [3, 4, 5], r"column 'query' holds 3 \(type int64\); need a text"),
        ("negatives", ["a", "b", "c"], r"'negatives' holds 'a' \(type string\); need a list of texts"),
        ("negatives", [[1], [2], [3]], "'negatives' holds 1 .*need a text"),
        ("score", ["1", "2", "3"], "'score' holds '1' .*need a number"),
        ("label", [1.5, 2.0, 3.0], r"'label' holds 1\.5 .*need a whole number or a string"),
        ("query_teacher", [1.0, 2.0, 3.0], r"'query_teacher' holds 1\.0 .*need a vector"),
    ],
)
def test_a_column_of_another_type_is_an_error_even_where_rows_are_skipped(
    name: str, values: list[Any], wanted: str
) -> None:
    with pytest.raises(ValueError, match=rf"faq, row 0 .*{wanted}"):
        kept(pa.table({**PAIR, "text": PAIR["query"], "text1": PAIR["query"], name: values}))


def test_names_of_columns() -> None:
    names = ["query", "document", "negative_2", "negative_teacher", "negatives_teacher", "label", "id", "negatives"]
    assert text_columns(names) == ["query", "document", "negative_2", "negatives"]
    assert negative_columns(names) == ["negative_2"]


def test_a_pair_needs_a_label_unless_it_has_a_score() -> None:
    pairs = pa.table({"text1": ["a", "b"], "text2": ["c", "d"], "label": [True, None]})
    assert kept(pairs) == [{"text1": "a", "text2": "c", "label": True}]
    assert len(kept(pairs.append_column("score", pa.array([1.0, 2.0])))) == 2


def test_lists_of_candidates_may_be_empty_but_the_query_may_not() -> None:
    rows = [
        {"query": "a", "positive": ["b"], "negative": ["c", "d"]},
        {"query": "e", "positive": [], "negative": None},
        {"query": "", "positive": ["b"], "negative": ["c"]},
    ]
    assert kept(pa.Table.from_pylist(rows)) == rows[:2]
    with pytest.raises(ValueError, match=r"row 0 .*'negative' holds \['c', 'd'\] .*need a text"):
        usable_rows(pa.Table.from_pylist(rows[:1]).drop_columns("positive"), BadRows("faq"))
