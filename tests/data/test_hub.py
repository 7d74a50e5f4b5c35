import json
from pathlib import Path
from typing import Any

import datasets
import pytest

from lightning_jv5.data.hub import HubDataset


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LIGHTNING_JV5_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hub")


@pytest.fixture
def folder(tmp_path: Path) -> str:
    path = tmp_path / "faq"
    path.mkdir()
    for split in ("train", "test"):
        lines = [json.dumps({"question": f"{split} {number}", "answer": "because"}) for number in range(3)]
        (path / f"{split}.jsonl").write_text("\n".join(lines))
    return str(path)


COLUMNS = {"query": "question", "document": "answer"}


def test_split_columns_and_rows_are_taken(folder: str) -> None:
    loaded = HubDataset(folder, split="test", columns=COLUMNS, rows=2).load()
    assert loaded.to_list() == [{"query": f"test {number}", "document": "because"} for number in range(2)]


def test_an_unknown_split_names_those_there_are(folder: str) -> None:
    with pytest.raises(ValueError, match=r"no split 'tets'; it has .*test.*Did you mean 'test'\?"):
        HubDataset(folder, split="tets", columns=COLUMNS).load()


def test_columns_that_do_not_fit_name_the_data_set(folder: str) -> None:
    with pytest.raises(ValueError, match=r"faq train has the columns question, answer; need"):
        HubDataset(folder).load()


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ConnectionError("no route"), r"Cannot reach the hub for 'owner/name'.*LocalFiles"),
        (datasets.exceptions.DatasetNotFoundError("gone"), r"No data set 'owner/name' on the hub.*hf auth login"),
        (
            ValueError("Config name is missing. Pick 'en' or 'de'."),
            r"Cannot load 'owner/name' \(name=None.*'en' or 'de'",
        ),
        (RuntimeError("Dataset scripts are no longer supported"), "scripts are no longer supported"),
    ],
)
def test_errors_of_the_hub_say_what_to_do(monkeypatch: pytest.MonkeyPatch, error: Exception, message: str) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        assert "trust_remote_code" not in kwargs
        raise error

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    with pytest.raises(ValueError, match=message):
        HubDataset("owner/name").load()
