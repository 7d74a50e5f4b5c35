import pytest
import torch

from lightning_jv5.metrics import GroupedRetrieval, StreamingRetrieval, View

QUERIES, DOCUMENTS, DIM = 12, 40, 6
GROUPS = ["de", "en", None, "de", "fr", "en", "de", "none", None, "en", "en", "de"]
JUDGEMENTS = {
    query: {(query * 3) % DOCUMENTS: 1, (query * 7 + 1) % DOCUMENTS: 2} for query in range(QUERIES) if query != 7
}
SETTINGS = {"document_count": DOCUMENTS, "measures": ["ndcg@10", "map@100", "recall@1"]}


def fed(metric: StreamingRetrieval) -> StreamingRetrieval:
    generator = torch.Generator().manual_seed(0)
    queries, documents = (torch.randn(count, DIM, generator=generator) for count in (QUERIES, DOCUMENTS))
    metric.update("query", queries, torch.arange(QUERIES))
    metric.update("document", documents, torch.arange(DOCUMENTS))
    return metric


@pytest.mark.parametrize("view", [None, View(4), View(precision="rescored")])
def test_a_group_scores_as_a_metric_of_its_queries_alone(view: View | None) -> None:
    grouped = fed(GroupedRetrieval(JUDGEMENTS, query_count=QUERIES, groups=GROUPS, view=view, **SETTINGS))
    plain = fed(StreamingRetrieval(JUDGEMENTS, query_count=QUERIES, view=view, **SETTINGS))
    assert grouped.compute() == plain.compute()
    found = grouped.breakdown()
    assert list(found) == ["de", "en", "fr"]  # no query of the fourth group is judged
    for group, values in found.items():
        mine = {query: grades for query, grades in JUDGEMENTS.items() if GROUPS[query] == group}
        alone = fed(StreamingRetrieval(mine, query_count=QUERIES, view=view, **SETTINGS)).compute()
        assert values == pytest.approx({name: value.item() for name, value in alone.items()}, abs=1e-6)
    assert len({values["ndcg@10"] for values in found.values()}) == 3


def test_other_metrics_know_no_groups() -> None:
    assert fed(StreamingRetrieval(JUDGEMENTS, query_count=QUERIES, **SETTINGS)).breakdown() == {}


def test_a_group_is_needed_for_each_query() -> None:
    with pytest.raises(ValueError, match="Got 11 groups for 12 rows"):
        GroupedRetrieval(JUDGEMENTS, query_count=QUERIES, groups=GROUPS[:-1], **SETTINGS)
