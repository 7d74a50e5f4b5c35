import math
from typing import Any

import pytest
from datasets import Dataset

from lightning_jv5.tasks.columns import column, group_column, label_column, score_column, text_column, truth_column


@pytest.mark.parametrize(
    ("score", "shown"), [("4", "'4'"), (None, "None"), (math.nan, "nan"), (math.inf, "inf"), (True, "True")]
)
def test_a_score_that_is_no_number_is_refused(score: Any, shown: str) -> None:
    with pytest.raises(ValueError, match=rf"Got pairs with the score {shown} in row 0 \(the first is 0\); need a fini"):
        score_column(Dataset.from_dict({"score": [score]}), "pairs")


@pytest.mark.parametrize(("label", "shown"), [(1.5, "1.5"), (None, "None"), (["a"], r"\['a'\]")])
def test_a_label_that_is_neither_a_string_nor_whole_is_refused(label: Any, shown: str) -> None:
    with pytest.raises(ValueError, match=f"Got train with the label {shown} in row 0 .* need a string or a whole"):
        label_column(Dataset.from_dict({"label": [label]}), "train")


@pytest.mark.parametrize(("label", "shown"), [(2, "2"), ("1", "'1'"), (None, "None"), (1.0, "1.0")])
def test_a_label_that_is_neither_yes_nor_no_is_refused(label: Any, shown: str) -> None:
    with pytest.raises(ValueError, match=f"Got pairs with the label {shown} in row 0 .* need 0 or 1"):
        truth_column(Dataset.from_dict({"label": [label]}), "pairs")


@pytest.mark.parametrize(("value", "shown"), [(1.5, "1.5"), (["de"], r"\['de'\]")])
def test_a_group_that_is_neither_a_string_nor_whole_is_refused(value: Any, shown: str) -> None:
    with pytest.raises(ValueError, match=f"Got pairs with lang={shown} in row 0 .* need a string or a whole number"):
        group_column(Dataset.from_dict({"lang": [value]}), "lang", "pairs")


def test_columns_are_read_whole() -> None:
    rows = Dataset.from_dict({"text": ["a", None, ""], "label": [3, 1, 3], "score": [1, 0, 5]})
    assert text_column(rows, "text", "texts") == ["a", "", ""]
    assert label_column(rows, "texts") == [3, 1, 3]
    assert score_column(rows, "texts") == [1.0, 0.0, 5.0]
    assert group_column(rows, "label", "texts") == ["3", "1", "3"]
    assert truth_column(Dataset.from_dict({"label": [1, 0]}), "pairs") == [True, False]
    assert truth_column(Dataset.from_dict({"label": [False, True]}), "pairs") == [False, True]


def test_what_is_not_there_is_missed() -> None:
    with pytest.raises(ValueError, match="Got pairs with the columns text; need 'score'"):
        score_column(Dataset.from_dict({"text": ["a"]}), "pairs")
    with pytest.raises(ValueError, match="Got texts with the columns none; need 'text'"):
        column(Dataset.from_dict({}), "text", "texts")
    empty = Dataset.from_dict({"text": []})
    with pytest.raises(ValueError, match="Got texts without any rows; need at least one"):
        column(empty, "text", "texts")
    assert column(empty, "text", "texts", may_be_empty=True) == []
