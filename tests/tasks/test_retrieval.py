from collections.abc import Sequence
from dataclasses import replace

import datasets
import pytest
import torch

from lightning_jv5.data.source import Source
from lightning_jv5.metrics import GroupedRetrieval, View
from lightning_jv5.rebuildable import describe, rebuild
from lightning_jv5.tasks import ReadyRetrieval, RetrievalData, RetrievalTask


class Columns(Source):
    """Rows written down in the test; counts how often they are read."""

    def __init__(self, columns: dict[str, list[str | None]]) -> None:
        self.columns, self.loads = columns, 0

    def load(self) -> datasets.Dataset:
        self.loads += 1
        features = datasets.Features({name: datasets.Value("string") for name in self.columns})
        return datasets.Dataset.from_dict(self.columns, features=features)


def pairs(query: Sequence[str | None], document: Sequence[str | None]) -> Columns:
    return Columns({"query": list(query), "document": list(document)})


def prepared(task: RetrievalTask) -> RetrievalTask:
    task.prepare()
    return task


READY = RetrievalData(
    ["q1", "q2"],
    ["first", "second"],
    ["d9", "d10", "d11", "d12"],
    ["nine", "ten", "", "twelve"],
    {"q1": {"d9": 2, "d12": 0}, "q2": {"d11": 1}},
)


def test_equal_documents_are_one_and_equal_queries_have_several_answers() -> None:
    data = prepared(RetrievalTask(pairs("abac", "xyzx"))).data
    assert (data.queries, data.documents) == (["a", "b", "c"], ["x", "y", "z"])
    assert data.judgements == {"0": {"0": 1, "2": 1}, "1": {"1": 1}, "2": {"0": 1}}


def test_a_corpus_adds_documents_but_no_second_copy_of_an_answer() -> None:
    task = prepared(RetrievalTask(pairs("ab", "xy"), corpus=Columns({"text": ["y", "v", "v", "w"]})))
    assert task.data.documents == ["x", "y", "v", "w"]
    assert [(part.role, part.sharded, len(part.texts)) for part in task.parts()] == [
        ("query", False, 2),
        ("document", True, 4),
    ]


def test_documents_without_text_keep_their_place() -> None:
    task = prepared(RetrievalTask(pairs("abc", ["x", None, "z"])))
    assert task.data.documents == ["x", "", "z"]
    assert task.data.judgements["2"] == {"2": 1}


def test_data_is_read_once() -> None:
    source = pairs("a", "x")
    task = prepared(prepared(RetrievalTask(source)))
    assert source.loads == 1
    assert task.parts()[0].texts == ["a"]


@pytest.mark.parametrize("max_documents", [2, 5, 11, 12, 100])
def test_sample_keeps_every_judged_document_in_order(max_documents: int) -> None:
    corpus = Columns({"text": [f"distractor {number}" for number in range(10)]})
    task = prepared(RetrievalTask(pairs("ab", "xy"), corpus=corpus, max_documents=max_documents, seed=3))
    again = prepared(RetrievalTask(pairs("ab", "xy"), corpus=corpus, max_documents=max_documents, seed=3))
    whole = prepared(RetrievalTask(pairs("ab", "xy"), corpus=corpus)).data.documents
    kept = list(task.data.documents)
    assert len(kept) == min(max_documents, 12)
    assert kept[:2] == ["x", "y"]
    assert kept == [text for text in whole if text in kept] == again.data.documents


def test_another_seed_draws_another_sample() -> None:
    corpus = Columns({"text": [str(number) for number in range(100)]})
    drawn = [
        prepared(RetrievalTask(pairs("a", "x"), corpus=corpus, max_documents=20, seed=seed)).data.documents
        for seed in (0, 1)
    ]
    assert drawn[0] != drawn[1]


def test_metric_ranks_by_the_ids_of_the_data_and_holds_the_main_measure() -> None:
    metric = prepared(ReadyRetrieval(READY, main_metric="recall@3")).metric()
    metric.update("query", torch.ones(2, 1), torch.arange(2))
    metric.update("document", torch.ones(4, 1), torch.arange(4))  # all tie: ids descending, d9 d12 d11 d10
    assert metric.rankings()[1][:, :4].tolist() == [[0, 3, 2, 1]] * 2
    computed = metric.compute()
    assert computed["mrr@10"].item() == pytest.approx((1 + 1 / 3) / 2)
    assert computed["recall@3"].item() == 1.0


def test_queries_are_grouped_by_the_column_of_their_first_row() -> None:
    columns = {"query": list("abcabd"), "document": list("xyzyzx"), "lang": ["de", "en", None, "en", "en", "de"]}
    task = prepared(RetrievalTask(Columns(columns), group="lang"))
    assert task.data.groups == {"0": "de", "1": "en", "3": "de"}
    metric = task.metric()
    metric.update("query", torch.eye(4), torch.arange(4))
    metric.update("document", torch.eye(3, 4), torch.arange(3))
    assert isinstance(metric, GroupedRetrieval)
    assert list(metric.breakdown()) == ["de", "en"]
    with pytest.raises(ValueError, match="Got pairs with the columns query, document, lang; need 'language'"):
        RetrievalTask(Columns(columns), group="language").prepare()


def test_a_sample_keeps_groups_candidates_and_what_is_excluded() -> None:
    extras = {"groups": {"q1": "de"}, "candidates": {"q1": ["d9", "d10"]}, "excluded": {"q2": ["d10", "gone"]}}
    whole = replace(READY, **extras)  # type: ignore[arg-type]
    assert whole.sample(4, seed=0) is whole
    with pytest.raises(ValueError, match="max_documents=3 for 4 judged documents"):
        whole.sample(3, seed=0)
    fewer = replace(whole, candidates={"q1": ["d9"], "q2": ["d9"]}).sample(3, seed=0)
    assert (fewer.groups, fewer.excluded) == (whole.groups, whole.excluded)
    assert fewer.document_ids == ["d9", "d11", "d12"]
    metric = prepared(ReadyRetrieval(fewer)).metric()  # of which d10 is not there to be excluded
    metric.update("query", torch.eye(2), torch.arange(2))
    metric.update("document", torch.eye(3, 2), torch.arange(3))
    assert metric.rankings()[1][:, :2].tolist() == [[0, -1], [0, -1]]


def test_excluded_documents_are_not_found() -> None:
    metric = prepared(ReadyRetrieval(replace(READY, excluded={"q1": ["d9"], "q2": ["elsewhere"]}))).metric()
    metric.update("query", torch.ones(2, 1), torch.arange(2))
    metric.update("document", torch.ones(4, 1), torch.arange(4))
    assert metric.rankings()[1][:, :4].tolist() == [[3, 2, 1, -1], [0, 3, 2, 1]]


def test_examples_say_what_ranks_first_and_whether_it_is_right() -> None:
    task = prepared(ReadyRetrieval(READY))
    metric = task.metric()
    metric.update("query", torch.eye(2), torch.arange(2))
    metric.update("document", torch.tensor([[0.5, 0.1], [0.9, 0.0], [0.2, 0.3], [0.7, 0.2]]), torch.arange(4))
    first, second = task.examples(metric, count=5, top=3)
    assert first["query"] == "first"
    assert [(row["text"], row["grade"], row["relevant"]) for row in first["documents"]] == [
        ("ten", None, False),
        ("twelve", 0, False),
        ("nine", 2, True),
    ]
    assert first["documents"][0]["score"] == pytest.approx(0.9)
    assert second["documents"][0]["text"] == ""
    assert len(task.examples(metric, count=1, top=50)[0]["documents"]) == 4


def test_a_checkpoint_rebuilds_the_task() -> None:
    task = rebuild(describe(RetrievalTask(pairs("a", "x"), max_documents=1)))
    assert prepared(task).data.documents == ["x"]
    assert prepared(rebuild(describe(ReadyRetrieval(READY)))).data == READY


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (RetrievalTask(), "without pairs; .* Set pairs"),
        (RetrievalTask(pairs("", "")), "Got pairs without any rows"),
        (RetrievalTask(Columns({"query": ["a"], "text": ["x"]})), "Got pairs with the columns query, text; need 'doc"),
        (RetrievalTask(pairs("a", "x"), corpus=Columns({"body": ["x"]})), "Got corpus with the columns body; need 'te"),
        (RetrievalTask(pairs("ab", "xy"), max_documents=1), "max_documents=1 for 2 judged documents; need at least 2"),
    ],
)
def test_prepare_says_what_is_wrong(task: RetrievalTask, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        task.prepare()


def test_an_unknown_main_metric_is_refused_before_anything_loads() -> None:
    with pytest.raises(ValueError, match="Got measure 'ndcg'"):
        RetrievalTask(pairs("a", "x"), main_metric="ndcg")


def test_an_unprepared_task_says_so() -> None:
    with pytest.raises(ValueError, match=r"Call prepare\(\) first"):
        RetrievalTask(pairs("a", "x")).parts()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"queries": []}, "Got 0 queries and 2 ids"),
        ({"documents": ["nine"]}, "Got 1 documents and 4 ids"),
        ({"document_ids": ["d9", "d9", "d11", "d12"]}, "Got 1 repeated ids of documents"),
        ({"judgements": {"q1": {}}}, "Got no judgements"),
        ({"judgements": {"q3": {"d9": 1}}}, "judgements of 1 unknown queries, such as 'q3'"),
        ({"judgements": {"q1": {"d1": 1}}}, "judgements of 1 unknown documents, such as 'd1'"),
        ({"groups": {"q3": "de"}}, "groups of 1 unknown queries, such as 'q3'"),
        ({"excluded": {"q3": ["d9"]}}, "exclusions of 1 unknown queries, such as 'q3'"),
        ({"candidates": {"q3": ["d9"]}}, "candidates of 1 unknown queries, such as 'q3'"),
        ({"candidates": {"q1": ["d9", "d7", "d8"]}}, "candidates of 2 unknown documents, such as 'd7'"),
    ],
)
def test_data_that_does_not_fit_together_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(READY, **change)  # type: ignore[arg-type]


def test_metrics_of_a_task_share_the_tie_order_and_the_judgements() -> None:
    task = prepared(ReadyRetrieval(READY))
    one, other = task.metric(), task.metric(View(dim=2))
    assert one.tie_order.dtype == torch.int32
    assert one.tie_order.data_ptr() == other.tie_order.data_ptr()
    assert one._judgements is other._judgements
