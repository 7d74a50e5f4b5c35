import subprocess
import sys
from pathlib import Path
from typing import Any

import datasets
import pytest

from lightning_jv5.data.source import Source, first_rows, new_names
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


def test_renaming_can_swap_names() -> None:
    arrived = ["query", "document", "query_teacher"]
    assert new_names(arrived, {"query": "document", "document": "query"}, "x") == {
        "document": "query",
        "query": "document",
    }


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
    with pytest.raises(ValueError, match=message):
        new_names(["question", "answer", "text"], columns, "faq.jsonl")


def test_rows_without_a_known_layout_are_refused_with_the_nearest_name() -> None:
    with pytest.raises(ValueError, match=r"columns qurey, document; need query \+ document or .*Did you mean 'query'"):
        new_names(["qurey", "document"], {}, "faq.jsonl")


@pytest.mark.parametrize(
    ("arrived", "columns"),
    [
        (["sentence1", "sentence2", "labels"], {"text1": "sentence1", "text2": "sentence2", "label": "labels"}),
        (["sentence1", "sentence2", "lang"], {"text1": "sentence1", "text2": "sentence2"}),
        (["question", "positive", "negative"], {"query": "question"}),
    ],
)
def test_rows_of_every_evaluation_task_are_a_known_layout(arrived: list[str], columns: dict[str, str]) -> None:
    assert new_names(arrived, columns, "x") == {theirs: ours for ours, theirs in columns.items()}


def test_any_source_can_be_streamed() -> None:
    assert list(Greetings(3).stream()) == [{"text": "hello"}] * 3


@pytest.mark.parametrize("wanted", [0, 3])
def test_first_rows_refuses_more_than_there_are(wanted: int) -> None:
    with pytest.raises(ValueError, match=f"Got rows={wanted}, but x has 2 rows"):
        first_rows(rows(text=["a", "b"]), wanted, "x")
