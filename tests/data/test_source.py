import subprocess
import sys
from pathlib import Path
from typing import Any

import datasets
import pytest

from lightning_jv5.data.source import Source, check_texts, first_rows, rename_columns, text_columns
from lightning_jv5.rebuildable import describe, rebuild


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LIGHTNING_JV5_CACHE", str(tmp_path / "cache"))


def rows(**columns: Any) -> datasets.Dataset:
    return datasets.Dataset.from_dict(columns)


class Greetings(Source):
    def __init__(self, count: int = 2) -> None:
        self.count = count

    def load(self) -> datasets.Dataset:
        return rows(text=["hello"] * self.count)


def test_a_source_can_be_described_and_rebuilt() -> None:
    assert len(rebuild(describe(Greetings(3))).load()) == 3


def test_importing_the_sources_imports_no_heavy_package() -> None:
    code = (
        "import sys, lightning_jv5.data.source, lightning_jv5.data.files, lightning_jv5.data.hub, "
        "lightning_jv5.data.docstrings, lightning_jv5.data.tokenized; "
        "print({'datasets', 'pandas', 'pyarrow'} & set(sys.modules))"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "set()"


def test_renaming_keeps_other_columns_and_swaps_names() -> None:
    renamed = rename_columns(
        rows(query=["a"], document=["b"], query_teacher=[[0.5]]), {"query": "document", "document": "query"}, "x"
    )
    assert renamed[0] == {"document": "a", "query": "b", "query_teacher": [0.5]}


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"query": "qustion", "document": "answer"}, r"faq\.jsonl has the columns question, answer, text; .*'qustion'"),
        ({"query": "qustion", "document": "answer"}, r"Did you mean 'question'\?"),
        ({"query": "answer", "document": "answer"}, "takes 'answer' twice"),
        ({"text": "answer"}, "already has a column 'text'"),
    ],
)
def test_wrong_columns_are_explained(columns: dict[str, str], message: str) -> None:
    dataset = rows(question=["a"], answer=["b"], text=["c"])
    with pytest.raises(ValueError, match=message):
        rename_columns(dataset, columns, "faq.jsonl")


def test_rows_without_a_known_layout_are_refused_with_the_nearest_name() -> None:
    with pytest.raises(ValueError, match=r"columns qurey, document; need query \+ document or .*Did you mean 'query'"):
        rename_columns(rows(qurey=["a"], document=["b"]), {}, "faq.jsonl")


@pytest.mark.parametrize("bad", ["", "  \n", None])
def test_a_text_with_nothing_in_it_is_found_by_row(bad: str | None) -> None:
    texts = ["fine"] * 5000
    texts[4321] = bad  # type: ignore[call-overload]
    with pytest.raises(ValueError, match=r"faq\.jsonl, row 4321 .*'query' holds .*Remove the row"):
        check_texts(rows(query=texts), ["query"], "faq.jsonl")


def test_the_row_is_right_in_a_selection_and_in_lists_of_texts() -> None:
    dataset = rows(negative=[["a", "b"], ["c"], ["d", ""]])
    with pytest.raises(ValueError, match="row 2 "):
        check_texts(dataset, ["negative"], "x")
    with pytest.raises(ValueError, match="row 0 "):
        check_texts(dataset.select([2, 0]), ["negative"], "x")


def test_numbers_are_no_texts() -> None:
    with pytest.raises(ValueError, match=r"row 0: column 'query' holds 3 \(type int64\)"):
        check_texts(rows(query=[3, 4]), ["query"], "x")


def test_good_texts_pass_and_are_not_scanned_again(monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = rows(query=["a", "b"], document=["c", "d"])
    check_texts(dataset, text_columns(dataset), "x")
    monkeypatch.setattr("lightning_jv5.data.source._check_column", None)
    check_texts(dataset, text_columns(dataset), "x")


def test_text_columns_are_those_of_the_layouts_and_the_negatives() -> None:
    dataset = rows(query=["a"], document=["b"], negative_2=["c"], negative_teacher=[[0.1]], label=[1], id=["x"])
    assert text_columns(dataset) == ["query", "document", "negative_2"]


@pytest.mark.parametrize("wanted", [0, 3])
def test_first_rows_refuses_more_than_there_are(wanted: int) -> None:
    with pytest.raises(ValueError, match=f"Got rows={wanted}, but x has 2 rows"):
        first_rows(rows(text=["a", "b"]), wanted, "x")
