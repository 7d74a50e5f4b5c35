import numpy as np
import pytest

from lightning_jv5.data.layouts import row_by_row


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["query", "document", "id"], {"query": ("query",), "document": ("document",)}),
        (
            ["document", "negative_2", "query", "negative", "negative_teacher"],
            {"query": ("query",), "document": ("document",), "negatives": ("negative", "negative_2")},
        ),
        (
            ["query", "document", "negatives", "score"],
            {"query": ("query",), "document": ("document",), "negatives": ("negatives",)},
        ),
        (["text1", "text2", "score"], {"query": ("text1",), "document": ("text2",)}),
        (["text", "label"], {"query": ("text",)}),
        (["query"], {"query": ("query",)}),
    ],
)
def test_names_of_columns_say_what_rows_are(names: list[str], expected: dict[str, tuple[str, ...]]) -> None:
    layout = row_by_row(names, 5, "faq")
    assert layout.columns == expected
    assert layout.size == 5
    assert layout.text_columns == [column for columns in expected.values() for column in columns]


@pytest.mark.parametrize(
    ("names", "grades"),
    [
        (["text1", "text2", "score", "label"], ("score",)),
        (["text", "label", "score"], ("label",)),
        (["query", "document", "label", "score"], ()),  # nobody knows what they are about
    ],
)
def test_scores_and_labels_are_those_of_the_texts(names: list[str], grades: tuple[str, ...]) -> None:
    assert row_by_row(names, 5, "faq").grades == grades


def test_all_roles_are_in_the_row_that_is_drawn() -> None:
    roles = row_by_row(["query", "document", "negative"], 5, "faq").roles(np.array([3, 1]), key=0)
    assert set(roles) == {"query", "document", "negatives"}
    assert all(role.rows.tolist() == [3, 1] for role in roles.values())
    assert roles["query"].rows is roles["negatives"].rows  # so that they are read once


def test_columns_that_say_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="faq has the columns document, id; training needs 'query' and 'document'"):
        row_by_row(["document", "id"], 5, "faq")
    with pytest.raises(ValueError, match=r"faq has negatives as columns \(negative\) and as a list \('negatives'\)"):
        row_by_row(["query", "document", "negative", "negatives"], 5, "faq")
