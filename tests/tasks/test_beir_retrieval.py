import logging
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_jv5.data.text_column import TextColumn
from lightning_jv5.rebuildable import describe, rebuild
from lightning_jv5.tasks import BeirRetrieval, ReadyRetrieval, RetrievalData, View, evaluate
from tests.tiny_beir import CORPUS, JUDGEMENTS, QUERIES, write_beir
from tests.tiny_data import tiny_texts

from .labelled_texts import encode_words


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LIGHTNING_JV5_CACHE", str(tmp_path / "cache"))


def task_of(folder: str, **settings: Any) -> BeirRetrieval:
    task = BeirRetrieval(folder, **{"split": "train", **settings})
    task.prepare()
    return task


def test_judged_queries_all_documents_and_every_grade_are_kept(tmp_path: Path) -> None:
    judgements = [*JUDGEMENTS, ("q2", "d4", -1)]
    data = task_of(write_beir(tmp_path / "beir", judgements=judgements)).data
    assert (data.query_ids, data.queries) == (["q1", "q2"], ["red animals", "blue things"])
    assert data.document_ids == ["d1", "d2", "d3", "d4"]
    assert list(data.documents) == ["Foxes the fox is red", "The sky", "a robin", ""]
    assert data.judgements == {"q1": {"d1": 1, "d3": 2}, "q2": {"d2": 1, "d1": 0, "d4": -1}}
    bare = task_of(write_beir(tmp_path / "beir"), title=False).data
    assert list(bare.documents) == [row["text"] for row in CORPUS]


def test_documents_are_read_from_disk_also_of_a_sample_and_in_other_processes(tmp_path: Path) -> None:
    task = task_of(write_beir(tmp_path / "beir"), max_documents=3)
    for data in (task.data, task_of(write_beir(tmp_path / "beir")).data):
        assert isinstance(data.documents, TextColumn)
    assert list(task.data.documents) == ["Foxes the fox is red", "The sky", "a robin"]
    stored = pickle.dumps(task.data.documents)
    assert b"robin" not in stored
    assert list(pickle.loads(stored)) == list(task.data.documents)
    with pytest.raises(ValueError, match="max_documents=2 for 3 judged documents; need at least 3"):
        task_of(write_beir(tmp_path / "beir"), max_documents=2)


@pytest.mark.parametrize("ignore", [True, False])
def test_scores_are_those_of_the_same_data_in_memory(tmp_path: Path, ignore: bool) -> None:
    texts = tiny_texts(45, seed=0)
    corpus = [{"_id": f"{row}", "text": text} for row, text in enumerate(texts[:40])]
    queries = [{"_id": f"{row}", "text": texts[row]} for row in range(35, 45)]  # five of them are documents
    judgements = [
        (f"{row}", f"{(row * step + grade) % 40}", grade) for row in range(35, 45) for step, grade in ((3, 1), (7, 2))
    ]
    folder = write_beir(tmp_path / "beir", corpus, queries, judgements)
    graded: dict[str, dict[str, int]] = {}
    for query, document, grade in judgements:
        graded.setdefault(query, {})[document] = grade
    ready = RetrievalData(
        [row["_id"] for row in queries],
        [row["text"] for row in queries],
        [row["_id"] for row in corpus],
        [row["text"] for row in corpus],
        graded,
        excluded={str(row): [str(row)] for row in range(35, 40)} if ignore else {},
    )
    tasks = {"beir": task_of(folder, ignore_identical_ids=ignore), "ready": ReadyRetrieval(ready)}
    views = [View(), View(5), View(precision="binary"), View(precision="rescored")]
    scores = evaluate(encode_words, tasks, views, progress=False, batch_texts=7)
    for beir, memory in zip(scores[:4], scores[4:], strict=True):
        assert beir.complete
        assert beir.values == pytest.approx(memory.values, abs=1e-6)
    other = evaluate(encode_words, {"beir": task_of(folder, ignore_identical_ids=not ignore)}, progress=False)
    assert other[0].values != scores[0].values


def test_a_query_does_not_find_the_document_of_its_own_id(tmp_path: Path) -> None:
    corpus = [{"_id": "a", "text": "red"}, {"_id": "b", "text": "red house"}]
    queries = [{"_id": "a", "text": "red"}]
    folder = write_beir(tmp_path / "beir", corpus, queries, [("a", "b", 1)])
    [alone] = evaluate(encode_words, {"own": task_of(folder)}, progress=False)
    [both] = evaluate(encode_words, {"own": task_of(folder, ignore_identical_ids=False)}, progress=False)
    assert (alone.values["mrr@10"], both.values["mrr@10"]) == (1.0, 0.5)


def test_queries_are_grouped_by_a_field_of_theirs(tmp_path: Path) -> None:
    queries = [row | {"lang": lang} for row, lang in zip(QUERIES, ["en", None, "de"], strict=True)]
    folder = write_beir(tmp_path / "beir", queries=queries, judgements=[*JUDGEMENTS, ("q3", "d2", 1)])
    assert task_of(folder).data.groups == {}
    task = task_of(folder, group="lang")
    assert task.data.groups == {"q1": "en", "q3": "de"}
    metric = task.metric()
    metric.update("query", torch.eye(3), torch.arange(3))
    metric.update("document", torch.eye(4, 3), torch.arange(4))
    assert {group: values["recall@10"] for group, values in metric.breakdown().items()} == {"de": 1.0, "en": 1.0}
    with pytest.raises(ValueError, match=r"queries\.jsonl, line 1: there is no language, but _id, text, lang\. Need a"):
        task_of(folder, group="language")
    folder = write_beir(tmp_path / "other", queries=[row | {"lang": ["en"]} for row in QUERIES])
    with pytest.raises(ValueError, match=r"line 1: lang is \['en'\]\. Need a string or a whole number that names a gr"):
        task_of(folder, group="lang")


def test_a_checkpoint_rebuilds_the_task(tmp_path: Path) -> None:
    task = task_of(write_beir(tmp_path / "beir"), title=False, main_metric="recall@3")
    again = rebuild(describe(task))
    again.prepare()
    assert (again.main_metric, list(again.data.documents)) == ("recall@3", list(task.data.documents))


def test_bad_embeddings_are_refused(tmp_path: Path) -> None:
    corpus = [{"_id": row["_id"], "text": "the cat"} for row in CORPUS]
    task = task_of(write_beir(tmp_path / "beir", corpus, [{"_id": "q1", "text": "red"}], [("q1", "d1", 1)]))
    with pytest.raises(ValueError, match="NaN or infinite embeddings of"):
        evaluate(lambda texts, role: encode_words(texts, role) * torch.nan, {"beir": task}, progress=False)
    with pytest.raises(ValueError, match="embeddings of 12 coordinates for a view of 13"):
        evaluate(encode_words, {"beir": task}, [View(dim=13)], progress=False)


# Bad input


BROKEN = {
    "no such document": ("q1\td33\t1", r"train\.tsv, line 6: judges document 'd33', which is not in corpus\.jsonl\. "
                         r"Correct the id .* Did you mean 'd3'"),
    "no such query": ("q7\td1\t1", r"train\.tsv, line 6: judges query 'q7', which is not in queries\.jsonl"),
    "twice": ("q1\td1\t2", r"train\.tsv, line 6: the judgement of 'q1', 'd1' comes for the second time"),
    "no number": ("q1\td2\thigh", r"train\.tsv, line 6: the score is 'high'\. Need a whole number"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_a_bad_judgement_is_an_error_or_skipped_and_counted(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    line, message = BROKEN[name]
    folder = write_beir(tmp_path / "beir")
    whole = task_of(folder).data.judgements
    file = Path(folder) / "qrels" / "train.tsv"
    file.write_text(file.read_text() + line + "\n")
    with pytest.raises(ValueError, match=message):
        task_of(folder)
    with caplog.at_level(logging.WARNING):
        assert task_of(folder, on_bad_row="skip", max_bad_share=0.5).data.judgements == whole
    assert "skipped 1 of 5 rows" in caplog.text
    with pytest.raises(ValueError, match=r"cannot be used; max_bad_share allows 1\.00%"):
        task_of(folder, on_bad_row="skip")


def test_a_document_that_comes_twice_is_an_error_or_skipped(tmp_path: Path) -> None:
    folder = write_beir(tmp_path / "beir", corpus=[*CORPUS, {"_id": "d1", "text": "again"}])
    with pytest.raises(ValueError, match=r"corpus\.jsonl, line 5: _id 'd1' comes for the second time"):
        task_of(folder)
    data = task_of(folder, on_bad_row="skip", max_bad_share=0.5).data
    assert data.documents[0] == "Foxes the fox is red"


def test_judgements_of_nothing_that_is_there_are_refused(tmp_path: Path) -> None:
    folder = write_beir(tmp_path / "beir", judgements=[("x", "y", 1)])
    with pytest.raises(ValueError, match="none of 1 judgements is of a query and a document that are there"):
        task_of(folder, on_bad_row="skip", max_bad_share=1.0)
    (Path(folder) / "qrels" / "train.tsv").write_text("query-id\tcorpus-id\tscore\n")
    with pytest.raises(ValueError, match=r"train\.tsv holds no rows; need at least one"):
        task_of(folder)


def test_a_missing_split_is_named_with_the_nearest_and_wrong_settings_are_refused_at_once(tmp_path: Path) -> None:
    folder = write_beir(tmp_path / "beir")
    with pytest.raises(ValueError, match=r"No file .*test\.tsv.*train\.tsv"):
        BeirRetrieval(folder).prepare()
    with pytest.raises(ValueError, match="Got on_bad_row 'drop'"):
        BeirRetrieval("nowhere", on_bad_row="drop")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="Got measure 'ndcg'"):
        BeirRetrieval("nowhere", main_metric="ndcg")
