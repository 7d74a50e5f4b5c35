import logging
from pathlib import Path
from typing import Any

import datasets
import pytest

from lightning_jv5.data.text_column import TextColumn
from lightning_jv5.rebuildable import describe, rebuild
from lightning_jv5.tasks import BeirRetrieval, HubRetrieval, evaluate
from tests.tiny_beir import write_beir
from tests.tiny_hub import CORPUS, QRELS, QUERIES, TABLES, Tables, added, changed, renamed, write_hub

from .labelled_texts import encode_words


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LIGHTNING_JV5_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hub")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)


def task_of(path: str, **settings: Any) -> HubRetrieval:
    task = HubRetrieval(path, **settings)
    task.prepare()
    return task


def without(columns: dict[str, list[Any]], name: str) -> dict[str, list[Any]]:
    return {column: values for column, values in columns.items() if column != name}


def layouts(folder: Path) -> dict[str, HubRetrieval]:
    """The same data as mteb lays it out today, as it did before, as one of several languages, and as BEIR does."""
    today = write_hub(folder / "today", TABLES)
    before = write_hub(
        folder / "before",
        {
            "corpus": {"test": renamed(CORPUS, _id="id")},
            "queries": {"test": renamed(QUERIES, _id="id")},
            "qrels": {"test": QRELS},
        },
    )
    several = write_hub(folder / "several", {f"de-{name.replace('default', 'qrels')}": TABLES[name] for name in TABLES})
    beir = write_hub(folder / "beir", {name: TABLES[name] for name in ("corpus", "queries")})
    judged = write_hub(folder / "beir-qrels", {"default": {"test": QRELS}})
    return {
        "today": task_of(today),
        "before": task_of(before),
        "several": task_of(several, name="de"),
        "beir": task_of(beir, qrels_path=judged),
    }


@pytest.mark.parametrize("layout", ["today", "before", "several", "beir"])
def test_every_layout_gives_the_same_data(tmp_path: Path, layout: str) -> None:
    data = layouts(tmp_path)[layout].data
    assert (data.query_ids, data.queries) == (["q1", "q2"], ["red cat", "blue tree"])
    assert data.document_ids == ["d1", "d2", "d3", "d4"]
    assert list(data.documents) == ["the house the cat is red", "the tree", "a dog", ""]
    assert data.judgements == {"q1": {"d1": 1, "d3": 2}, "q2": {"d2": 1, "d1": 0}}
    assert isinstance(data.documents, TextColumn)


def test_scores_are_those_of_the_same_data_in_a_folder_of_beir(tmp_path: Path) -> None:
    corpus = [
        {name: value or "" for name, value in zip(CORPUS, row, strict=True)}
        for row in zip(*CORPUS.values(), strict=True)
    ]
    queries = [{"_id": name, "text": text} for name, text in zip(QUERIES["_id"], QUERIES["text"], strict=True)]
    judgements = list(zip(*QRELS.values(), strict=True))
    folder = write_beir(tmp_path / "beir", [row for row in corpus if row["text"]], queries, judgements[:2])
    tables = TABLES | {
        "corpus": {"corpus": {name: [values[0], values[2]] for name, values in CORPUS.items()}},
        "default": {"test": {name: values[:2] for name, values in QRELS.items()}},
    }
    tasks = {"beir": BeirRetrieval(folder, split="train"), "hub": HubRetrieval(write_hub(tmp_path / "hub", tables))}
    beir, hub = evaluate(encode_words, tasks, progress=False)
    assert beir.values == hub.values
    assert hub.complete


def test_splits_titles_groups_and_whole_numbers_for_ids_are_taken(tmp_path: Path) -> None:
    path = write_hub(tmp_path / "hub", TABLES)
    assert task_of(path, split="dev").data.judgements == {"q1": {"d1": 1}}
    assert list(task_of(path, title=False).data.documents)[:2] == ["the cat is red", ""]
    assert task_of(path, group="lang").data.groups == {"q1": "en", "q2": "de"}
    numbered = TABLES | {
        "corpus": {"corpus": without(CORPUS, "title") | {"_id": [1, 2, 3, 4]}},
        "default": {"test": QRELS | {"corpus-id": [1, 3, 2, 1], "score": [1.0, 2.0, 1.0, 0.0]}},
    }
    data = task_of(write_hub(tmp_path / "numbered", numbered)).data
    assert data.judgements == {"q1": {"1": 1, "3": 2}, "q2": {"2": 1, "1": 0}}
    assert list(data.documents) == ["the cat is red", "", "a dog", ""]


def test_what_was_read_once_is_read_from_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_hub(tmp_path / "hub", TABLES)
    first = task_of(path).data
    monkeypatch.setattr("lightning_jv5.data.hub_retrieval.identified_rows", lambda *args, **settings: None)
    again = task_of(path).data
    assert (again.judgements, list(again.documents)) == (first.judgements, list(first.documents))


def test_a_checkpoint_rebuilds_the_task(tmp_path: Path) -> None:
    task = HubRetrieval(write_hub(tmp_path / "hub", TABLES), split="dev", title=False)
    again = rebuild(describe(task))
    again.prepare()
    assert again.data.judgements == {"q1": {"d1": 1}}


# Bad input


BAD_ROWS: dict[str, tuple[Tables, str]] = {
    "no such document": (
        changed("default", "test", added(QRELS, "q1", "d33", 1)),
        r"test, row 4 \(the first is 0\): judges document 'd33', which is not in the corpus.*Did you mean 'd3'",
    ),
    "no such query": (
        changed("default", "test", added(QRELS, "q7", "d1", 1)),
        r"test, row 4 \(the first is 0\): judges query 'q7', which is not in the queries",
    ),
}


@pytest.mark.parametrize("name", BAD_ROWS)
def test_a_bad_row_is_an_error_or_skipped_and_counted(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    tables, message = BAD_ROWS[name]
    path = write_hub(tmp_path / "hub", tables)
    with pytest.raises(ValueError, match=message):
        task_of(path)
    with caplog.at_level(logging.WARNING):
        data = task_of(path, on_bad_row="skip", max_bad_share=0.5).data
    assert data.judgements == {"q1": {"d1": 1, "d3": 2}, "q2": {"d2": 1, "d1": 0}}
    assert "skipped 1 of" in caplog.text
    with pytest.raises(ValueError, match=r"cannot be used; max_bad_share allows 1\.00%"):
        task_of(path, on_bad_row="skip")


def test_a_data_set_that_is_not_there_and_wrong_settings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="owner/name"):
        task_of("owner/name")
    with pytest.raises(ValueError, match="Got on_bad_row 'drop'"):
        HubRetrieval("owner/name", on_bad_row="drop")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="Got measure 'ndcg'"):
        HubRetrieval("owner/name", main_metric="ndcg")
