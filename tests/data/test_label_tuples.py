import logging
from collections import Counter
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest

from lightning_jv5.data import label_tuples
from lightning_jv5.data.label_tuples import LabelTuples, label_index


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LIGHTNING_JV5_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(label_tuples, "_ROWS_PER_BLOCK", 5)


def labelled(labels: list[Any]) -> datasets.Dataset:
    return datasets.Dataset.from_dict({"text": [f"t{row}" for row in range(len(labels))], "label": labels})


LABELS = ["a", "b", "a", "c", "b", "a", "b", "d", "a", "c", "c", "d"]


def test_the_index_lists_the_rows_of_each_label_in_order() -> None:
    index = label_index(labelled([*LABELS, "alone"]), "x")
    assert index.labels == ["a", "b", "c", "d", "alone"]
    found = {label: index.rows[slice(*index.bounds[place : place + 2])] for place, label in enumerate(index.labels)}
    expected = {label: [row for row, of in enumerate([*LABELS, "alone"]) if of == label] for label in index.labels}
    assert {label: rows.tolist() for label, rows in found.items()} == expected
    assert isinstance(index.rows, np.memmap)


def test_the_index_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    first = label_index(labelled(LABELS), "x")
    monkeypatch.setattr(label_tuples, "_build", None)
    assert label_index(labelled(LABELS), "x").rows.tolist() == first.rows.tolist()


def draw(labels: list[Any], key: int, **settings: Any) -> list[tuple[int, int, list[int]]]:
    """Anchors, positives and negatives as rows, of every anchor there is."""
    layout = LabelTuples(**settings).layout(labelled(labels), "x")
    roles = layout.roles(np.arange(layout.size), key)
    counts = roles["negatives"].counts
    assert counts is not None
    negatives = np.split(roles["negatives"].rows, np.cumsum(counts)[:-1])
    return [
        (int(anchor), int(positive), rows.tolist())
        for anchor, positive, rows in zip(roles["query"].rows, roles["document"].rows, negatives, strict=True)
    ]


def test_a_tuple_is_an_anchor_another_of_its_label_and_others_of_other_labels() -> None:
    for key in range(30):
        tuples = draw(LABELS, key, negatives=5)
        assert sorted(anchor for anchor, _, _ in tuples) == list(range(12))
        for anchor, positive, negatives in tuples:
            assert LABELS[positive] == LABELS[anchor]
            assert positive != anchor
            assert len(set(negatives)) == len(negatives) == 5
            assert all(LABELS[row] != LABELS[anchor] for row in negatives)


def test_every_other_text_is_drawn_equally_often() -> None:
    positives, negatives = Counter[int](), Counter[int]()
    for key in range(1500):
        for anchor, positive, others in draw(LABELS, key * 7919, negatives=2):
            if anchor == 0:
                positives[positive] += 1
                negatives.update(others)
    assert set(positives) == {2, 5, 8}
    assert set(negatives) == {row for row, label in enumerate(LABELS) if label != "a"}
    assert all(abs(count / 500 - 1) < 0.15 for count in positives.values())
    assert all(abs(count / 375 - 1) < 0.2 for count in negatives.values())


def test_the_same_key_draws_the_same_and_another_key_others() -> None:
    assert draw(LABELS, 1) == draw(LABELS, 1)
    assert draw(LABELS, 1) != draw(LABELS, 2)


def test_labels_of_the_texts_come_with_them() -> None:
    layout = LabelTuples(3).layout(labelled(LABELS), "x")
    roles = layout.roles(np.array([0, 5, 11]), 0)
    for role in roles.values():
        assert role.labels is not None
        assert [layout.index.labels[label] for label in role.labels] == [LABELS[row] for row in role.rows]


def test_there_are_fewer_negatives_where_there_are_fewer_others() -> None:
    tuples = draw(["a", "a", "a", "b", "b"], 0, negatives=7)
    assert sorted((anchor, len(negatives)) for anchor, _, negatives in tuples) == [
        (0, 2),
        (1, 2),
        (2, 2),
        (3, 3),
        (4, 3),
    ]


def test_whole_numbers_are_labels_too() -> None:
    assert label_index(labelled([1, 0, 1, 0]), "x").labels == ["0", "1"]


MULTI = [["a", "b"], ["a"], ["b", "a"], ["c", "a"], ["c", "c"]]


@pytest.mark.parametrize(
    ("multi_label", "expected"),
    [
        ("first", {"a": [0, 1], "b": [2], "c": [3, 4]}),
        ("rarest", {"a": [1], "b": [0, 2], "c": [3, 4]}),  # a: 4 rows, b: 2, c: 2
        ("each", {"a": [0, 1, 2, 3], "b": [0, 2], "c": [3, 4]}),
    ],
)
def test_a_row_of_several_labels_counts_as_is_asked_for(multi_label: Any, expected: dict[str, list[int]]) -> None:
    index = label_index(labelled(MULTI), "x", multi_label)
    rows = {label: index.rows[slice(*index.bounds[place : place + 2])] for place, label in enumerate(index.labels)}
    assert {label: found.tolist() for label, found in rows.items()} == expected


def test_labels_of_a_single_row_are_an_error_or_left_out(caplog: pytest.LogCaptureFixture) -> None:
    labels = [*LABELS, "alone", "lonely"]
    with pytest.raises(ValueError, match=r"x: 2 of 6 labels have a single row, such as 'alone' \(row 12\)"):
        LabelTuples().layout(labelled(labels), "x")
    tuples = draw(labels, 0, negatives=10, unusable="leave_out")
    assert sorted(anchor for anchor, _, _ in tuples) == list(range(12))
    assert {12, 13} & {row for _, _, negatives in tuples for row in negatives}  # still somebody's negative
    assert "x: 2 of 6 labels have a single row" in caplog.text


def test_a_set_of_a_single_label_is_an_error_or_left_out(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ValueError, match="x has a single label, 'a'; tuples need texts of other labels"):
        LabelTuples().layout(labelled(["a", "a"]), "x")
    with caplog.at_level(logging.WARNING):
        assert LabelTuples(unusable="leave_out").layout(labelled(["a", "a"]), "x").size == 0
    assert "The set is left out" in caplog.text


def test_a_set_of_nothing_but_single_rows_is_an_error_or_left_out(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ValueError, match="x: 3 of 3 labels have a single row"):
        LabelTuples().layout(labelled(["a", "b", "c"]), "x")
    assert LabelTuples(unusable="leave_out").layout(labelled(["a", "b", "c"]), "x").size == 0
    assert "With them, the set" in caplog.text


def test_of_rows_of_several_labels_none_that_shares_the_anchors_is_a_negative() -> None:
    labels = [["a", "b"], ["a"], ["b", "c"], ["c"], ["a", "c"], ["b"], ["d"], ["d", "a"], ["e"], ["e"]]
    layout = LabelTuples(negatives=3, multi_label="each").layout(labelled(labels), "x")
    found = set()
    for key in range(40):
        roles = layout.roles(np.arange(layout.size), key)
        counts, own = roles["negatives"].counts, roles["query"].labels
        assert counts is not None
        assert own is not None
        ends = np.cumsum(counts)
        for anchor, (start, end) in enumerate(zip([0, *ends[:-1]], ends, strict=True)):
            rows = roles["negatives"].rows[start:end].tolist()
            label = layout.index.labels[own[anchor]]
            assert len(set(rows)) == len(rows) > 0
            assert not [row for row in rows if label in labels[row]]
            found.add(len(rows))
    assert max(found) == 3


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"text": ["a"]}, "x has the columns text; tuples need 'label'"),
        ({"query": ["a"], "label": [1]}, "x has the columns query, label; tuples need 'text'"),
        (
            {"text": ["a", "b"], "label": [["y"], ["z"]]},
            r"x has lists of labels, such as \['y'\]; say what a row counts",
        ),
    ],
)
def test_columns_that_do_not_fit_are_named(columns: dict[str, list[Any]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LabelTuples().layout(datasets.Dataset.from_dict(columns), "x")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"negatives": 0}, "Got 0 negatives; need at least 1"),
        ({"multi_label": "last"}, "Got multi_label 'last'; need first, rarest or each"),
        ({"unusable": "skip"}, "Got unusable 'skip'; need error or leave_out"),
    ],
)
def test_settings_are_checked(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LabelTuples(**settings)
