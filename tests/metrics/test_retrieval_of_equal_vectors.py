"""Documents of equal vectors, in views of floats and of int8: they tie, however the corpus arrives."""

from pathlib import Path

import pytest
import pytrec_eval
import torch
from torch import Tensor
from torch import distributed as dist
from torch import multiprocessing as mp

from lightning_jv5.metrics import StreamingRetrieval, View
from lightning_jv5.metrics.exact_scores import on_grid

from .references import slow_measure, slow_ranking

QUERIES, DIM, DEPTH = 23, 67, 20
MEASURES = ["ndcg@10", "mrr@5", f"map@{DEPTH}", "recall@7", "p@3"]
Outcome = tuple[Tensor, Tensor, dict[str, Tensor]]
VIEWS = [View(), View(dim=40), View(precision="int8"), View(dim=33, precision="int8")]


class EqualVectors:
    """Random floats, each vector that of two to 60 documents: more than a query finds, too."""

    def __init__(self, seed: int, documents: int = 300) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.query = torch.randn(QUERIES, DIM, generator=generator)
        distinct = torch.randn(documents // 3, DIM, generator=generator)
        of = torch.cat([torch.arange(len(distinct)).repeat(2), torch.zeros(documents - 2 * len(distinct)).long()])
        of[-40:] = torch.arange(40) + 1
        self.document = distinct[of[torch.randperm(documents, generator=generator)]]
        self.query[0] = distinct[0] + 0.1 * self.query[0]  # of the 60
        numbers = torch.randperm(9 * documents, generator=generator)[:documents].tolist()
        self.ids = [f"d{number}" for number in numbers]
        self.tie_order = torch.empty(documents, dtype=torch.int64)
        self.tie_order[torch.tensor(sorted(range(documents), key=self.ids.__getitem__))] = torch.arange(documents)
        near = (self.query @ self.document.T).topk(12).indices.tolist()
        self.judgements = {query: {row: place % 4 for place, row in enumerate(rows)} for query, rows in enumerate(near)}

    def metric(self, view: View, batch: int, seed: int = 0, share: slice = slice(None)) -> StreamingRetrieval:
        documents = len(self.ids)
        metric = StreamingRetrieval(
            self.judgements,
            query_count=QUERIES,
            document_count=documents,
            tie_order=self.tie_order,
            measures=MEASURES,
            view=view,
        )
        for rows in torch.arange(QUERIES).split(batch):
            metric.update("query", self.query[rows], rows)
        shuffled = torch.randperm(documents, generator=torch.Generator().manual_seed(seed))
        for rows in shuffled[share].split(batch):
            metric.update("document", self.document[rows], rows)
        return metric

    def scores(self, view: View) -> list[list[float]]:
        """What a metric ranks by: the sums of float64, rounded once."""
        query, document = (on_grid(view.document(view.cut(side))).double() for side in (self.query, self.document))
        return [[float((one * other).sum().float()) for other in document] for one in query]


def outcome(metric: StreamingRetrieval) -> Outcome:
    return *metric.rankings(), metric.per_query()


def assert_same(
    found: tuple[Tensor, Tensor, dict[str, Tensor]], other: tuple[Tensor, Tensor, dict[str, Tensor]]
) -> None:
    assert found[0].equal(other[0])
    assert found[1].equal(other[1])
    assert all(values.equal(other[2][name]) for name, values in found[2].items())


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.name or "whole")
def test_rankings_and_measures_are_those_of_trec_eval_and_of_a_slow_reference(view: View, seed: int) -> None:
    case = EqualVectors(seed)
    scores, (found_scores, found_rows, by_query) = case.scores(view), outcome(case.metric(view, 32))
    rankings = [slow_ranking(row, case.ids) for row in scores]
    assert found_rows.tolist() == [ranking[:DEPTH] for ranking in rankings]
    assert found_scores.tolist() == [[scores[q][row] for row in rankings[q][:DEPTH]] for q in range(QUERIES)]
    assert len(found_scores[0].unique()) == 1  # its cut-off is among documents that tie
    for name in MEASURES:
        measure, k = name.split("@")
        expected = [slow_measure(measure, int(k), rankings[q], grades) for q, grades in case.judgements.items()]
        assert by_query[name].tolist() == pytest.approx(expected, abs=1e-12)
    run = {str(q): dict(zip(case.ids, scores[q], strict=True)) for q in range(QUERIES)}
    judged = {str(q): {case.ids[row]: grade for row, grade in of.items()} for q, of in case.judgements.items()}
    told = pytrec_eval.RelevanceEvaluator(judged, {"ndcg_cut.10", "map_cut.20"}).evaluate(run)
    for q in range(QUERIES):
        assert by_query["ndcg@10"][q].item() == pytest.approx(told[str(q)]["ndcg_cut_10"], abs=1e-9)
        assert by_query["map@20"][q].item() == pytest.approx(told[str(q)]["map_cut_20"], abs=1e-9)


@pytest.mark.parametrize("tile_scores", [2**22, 500])
@pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.name or "whole")
def test_batches_and_tiles_make_no_difference(view: View, tile_scores: int, monkeypatch: pytest.MonkeyPatch) -> None:
    case = EqualVectors(5)
    whole = outcome(case.metric(view, 300))
    monkeypatch.setattr("lightning_jv5.metrics.retrieval.TILE_SCORES", tile_scores)
    for batch in (1, 7, 32, 300):
        assert_same(outcome(case.metric(view, batch, seed=batch)), whole)


def _rank_of_two(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    try:
        share = [slice(0, 170), slice(160, 300)][rank]  # of different shapes, some rows on both
        found = [outcome(EqualVectors(6).metric(view, [32, 7][rank], share=share)) for view in VIEWS]
        torch.save(found, f"{folder}/{rank}.pt")
    finally:
        dist.destroy_process_group()


def test_ranks_make_no_difference(tmp_path: Path) -> None:
    mp.spawn(_rank_of_two, args=(str(tmp_path),), nprocs=2)
    for rank in range(2):
        for view, found in zip(VIEWS, torch.load(tmp_path / f"{rank}.pt"), strict=True):
            assert_same(found, outcome(EqualVectors(6).metric(view, 300)))


@pytest.mark.parametrize("sparse", [0, 10**9])
def test_reranking_gives_the_scores_of_search(sparse: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lightning_jv5.metrics.retrieval._SPARSE", sparse)  # by tiles, or pair by pair
    case, view = EqualVectors(7), View(precision="int8")
    scores, rows = case.metric(view, 300).rankings()
    for batch in (1, 32):
        metric = StreamingRetrieval(
            case.judgements,
            query_count=QUERIES,
            document_count=300,
            tie_order=case.tie_order,
            measures=["map@50"],
            view=view,
            candidates={query: sorted(listed) for query, listed in enumerate(rows.tolist())},
        )
        metric.update("query", case.query, torch.arange(QUERIES))
        for some in torch.arange(300).split(batch):
            metric.update("document", case.document[some], some)
        assert metric.keys.shape == (QUERIES, DEPTH)
        found_scores, found_rows = metric.rankings()
        assert found_scores[:, :DEPTH].equal(scores)
        assert found_rows[:, :DEPTH].equal(rows)
        assert (found_rows[:, DEPTH:] == -1).all()
