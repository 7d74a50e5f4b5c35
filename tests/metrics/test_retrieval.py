import copy
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import pytrec_eval
import torch
from torch import Tensor
from torch import distributed as dist
from torch import multiprocessing as mp

from lightning_jv5.data.best_keys import NOTHING, keep_best_of_all, pack, scores_of
from lightning_jv5.metrics import StreamingRetrieval, View
from lightning_jv5.metrics.judgements import Judgements
from lightning_jv5.metrics.keys_of_ranks import merge_ranks
from lightning_jv5.metrics.tie_order import TieOrder
from lightning_jv5.metrics.views import Precision

from .references import slow_measure, slow_ranking

NAMES = ("ndcg", "recall", "p", "mrr", "map")
KS = (1, 3, 10, 40)
MEASURES = [f"{name}@{k}" for name in NAMES for k in KS]


class Case:
    """A random corpus whose scores are small integers: exact in float32, and full of ties."""

    def __init__(self, seed: int, *, queries: int = 12, documents: int = 60) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.query = torch.randint(-2, 3, (queries, 4), generator=generator).float()
        self.document = torch.randint(-2, 3, (documents, 4), generator=generator).float()
        numbers = torch.randperm(documents * 3, generator=generator)[:documents].tolist()
        self.ids = [f"d{number}" for number in numbers]  # so that "d10" sorts before "d9"
        self.tie_order = torch.empty(documents, dtype=torch.int64)
        self.tie_order[torch.tensor(sorted(range(documents), key=self.ids.__getitem__))] = torch.arange(documents)
        grades = torch.randint(-2, 4, (queries, documents), generator=generator)
        is_judged = torch.rand(queries, documents, generator=generator) < 0.2
        self.judgements = {
            query: {row: int(grades[query, row]) for row in is_judged[query].nonzero().squeeze(1).tolist()}
            for query in range(queries)
        }
        self.judgements[0] = {}
        del self.judgements[1]
        self.judgements[2] = {0: 0, 5: -1}

    def metric(self, measures: Sequence[str] = MEASURES, **options: Any) -> StreamingRetrieval:
        return StreamingRetrieval(
            self.judgements,
            query_count=len(self.query),
            document_count=len(self.document),
            tie_order=self.tie_order,
            measures=measures,
            **options,
        )

    def full_metric(self, measures: Sequence[str] = MEASURES, **options: Any) -> StreamingRetrieval:
        metric = self.metric(measures, **options)
        metric.update("query", self.query, torch.arange(len(self.query)))
        metric.update("document", self.document, torch.arange(len(self.document)))
        return metric


def values_of(metric: StreamingRetrieval) -> dict[str, float]:
    return {name: value.item() for name, value in metric.compute().items()}


def trec_eval(
    case: Case, name: str, k: int, allowed: Callable[[int, int], bool] = lambda query, row: True
) -> dict[str, float]:
    """Values of trec_eval by query, of a run of the allowed pairs. MRR@k is recip_rank of a run of k documents."""
    scores = (case.query @ case.document.T).tolist()
    run, judged = {}, {}
    for query, grades in case.judgements.items():
        if grades:
            depth = k if name == "mrr" else len(case.ids)
            rows = [row for row in slow_ranking(scores[query], case.ids) if allowed(query, row)][:depth]
            run[str(query)] = {case.ids[row]: scores[query][row] for row in rows}
            judged[str(query)] = {case.ids[row]: grade for row, grade in grades.items()}
    measure = {
        "ndcg": f"ndcg_cut.{k}",
        "recall": f"recall.{k}",
        "p": f"P.{k}",
        "mrr": "recip_rank",
        "map": f"map_cut.{k}",
    }[name]
    results = pytrec_eval.RelevanceEvaluator(judged, {measure}).evaluate(run)
    # trec_eval leaves out a query whose run is empty; where all judged queries count it is 0
    return {query: results.get(query, {}).get(measure.replace(".", "_"), 0.0) for query in judged}


def assert_equals_trec_eval(
    metric: StreamingRetrieval, case: Case, allowed: Callable[[int, int], bool] = lambda query, row: True
) -> None:
    """Every measure of every query, and the means."""
    computed, by_query = values_of(metric), metric.per_query()
    for name in NAMES:
        for k in KS:
            expected, found = trec_eval(case, name, k, allowed), by_query[f"{name}@{k}"]
            assert found.dtype == torch.float64
            assert found.isnan().logical_not().nonzero().flatten().tolist() == sorted(map(int, expected))
            for query, value in expected.items():
                assert found[int(query)] == pytest.approx(value, abs=1e-6)
            assert computed[f"{name}@{k}"] == pytest.approx(sum(expected.values()) / len(expected), abs=1e-6)


@pytest.mark.parametrize("seed", range(25))
def test_equals_trec_eval(seed: int) -> None:
    case = Case(seed)
    metric = case.full_metric()
    computed = values_of(metric)
    for name in NAMES:
        for k in KS:
            by_query = trec_eval(case, name, k)
            assert by_query["2"] == 0.0
            assert len(by_query) == len(case.query) - metric.unjudged_queries == len(case.query) - 2
            assert computed[f"{name}@{k}"] == pytest.approx(sum(by_query.values()) / len(by_query), abs=1e-6)


@pytest.mark.parametrize("seed", range(25, 35))
def test_equals_slow_reference(seed: int) -> None:
    case = Case(seed, queries=7, documents=25)  # fewer documents than the largest cut-off
    scores = (case.query.double() @ case.document.double().T).tolist()
    rankings = [slow_ranking(row, case.ids) for row in scores]
    computed = values_of(case.full_metric())
    for name in NAMES:
        for k in KS:
            values = [slow_measure(name, k, rankings[q], grades) for q, grades in case.judgements.items() if grades]
            assert computed[f"{name}@{k}"] == pytest.approx(sum(values) / len(values), abs=1e-6)


@pytest.mark.parametrize("depth", [3, 60])
def test_rankings_are_in_trec_eval_order_at_the_cut_too(depth: int) -> None:
    case = Case(0)
    scores, rows = case.full_metric([f"map@{depth}"]).rankings()
    exact = case.query @ case.document.T
    assert rows.tolist() == [slow_ranking(row, case.ids)[:depth] for row in exact.tolist()]
    assert scores.equal(exact.gather(1, rows))


@pytest.mark.parametrize("batch", [1, 7, 60])
def test_order_splits_and_repeats_of_documents_do_not_matter(batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lightning_jv5.metrics.retrieval.TILE_SCORES", 20)
    case = Case(1)
    metric = case.metric()
    for rows in torch.randperm(len(case.query)).split(5):
        metric.update("query", case.query[rows], rows)
    shuffled = torch.randperm(len(case.document), generator=torch.Generator().manual_seed(batch))
    for rows in torch.cat([shuffled, shuffled[:20], shuffled[:3], shuffled[:3]]).split(batch):
        metric.update("document", case.document[rows], rows)
    whole = case.full_metric()
    assert metric.keys.equal(whole.keys)
    assert values_of(metric) == values_of(whole)
    assert metric.documents_seen == len(case.document)
    assert metric.is_complete()


def test_repeats_inside_a_batch_count_once() -> None:
    case = Case(2)
    metric = case.metric()
    rows = torch.arange(len(case.query))
    metric.update("query", case.query[rows].repeat(2, 1), rows.repeat(2))
    metric.update("document", case.document.repeat_interleave(3, 0), torch.arange(60).repeat_interleave(3))
    assert metric.keys.equal(case.full_metric().keys)
    assert metric.documents_seen == 60


def test_the_path_for_other_devices_gives_the_same_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = Case(3).full_metric().keys
    monkeypatch.setattr("lightning_jv5.metrics.retrieval.keep_best", keep_best_of_all)
    assert Case(3).full_metric().keys.equal(expected)


def test_part_of_the_corpus_is_recognised() -> None:
    case = Case(4)
    metric = case.metric()
    metric.update("query", case.query, torch.arange(12))
    metric.update("document", case.document[[0, 59]], torch.tensor([0, 59]))
    scores, rows = metric.rankings()
    assert (metric.documents_seen, metric.is_complete()) == (2, False)
    assert sorted(rows[0, :2].tolist()) == [0, 59]
    assert set(rows[:, 2:].flatten().tolist()) == {-1}
    assert scores[:, 2:].isneginf().all()
    metric.update("document", case.document[1:59], torch.arange(1, 59))
    assert metric.is_complete()
    assert values_of(metric) == values_of(case.full_metric())


def test_every_float_is_packed_in_order_and_back() -> None:
    tiny = torch.finfo(torch.float32).tiny
    scores = torch.tensor([[-torch.inf, -3.0, -1.5, -tiny, -0.0, tiny, 0.98, 0.98000006, 3e38, torch.inf]])
    keys = pack(scores, torch.arange(10, 0, -1))
    assert keys.sort().values.equal(keys)
    assert scores_of(keys).equal(scores)
    assert pack(torch.tensor([[-0.0, 0.0]]), torch.tensor([1, 1])).unique().numel() == 1


def test_a_document_that_ranks_score_differently_is_merged_once_at_its_best() -> None:
    def keys(scores: list[float], ties: list[int]) -> Tensor:
        packed = pack(torch.tensor([scores]), torch.tensor(ties, dtype=torch.int64))
        return torch.cat([packed, torch.full((1, 3 - len(ties)), NOTHING)], dim=1)

    merged = merge_ranks(torch.stack([keys([0.9, 0.5], [7, 0]), keys([], []), keys([0.90001, -1.0], [7, 3])]))
    assert (merged & 0xFFFFFFFF).tolist() == [[7, 0, 3]]
    torch.testing.assert_close(scores_of(merged), torch.tensor([[0.90001, 0.5, -1.0]]), rtol=0, atol=0)


def test_binary_representations_rank_by_hamming_distance() -> None:
    generator = torch.Generator().manual_seed(0)
    query, document = (torch.randint(0, 2, (rows, 64), generator=generator) for rows in (9, 50))
    metric = StreamingRetrieval({0: {0: 1}}, query_count=9, document_count=50, measures=["recall@50"])
    metric.update("query", 2.0 * query - 1, torch.arange(9))
    metric.update("document", 2.0 * document - 1, torch.arange(50))
    distance = (query[:, None] != document).sum(2).tolist()
    expected = [sorted(range(50), key=lambda row: (-row_distance[row], row), reverse=True) for row_distance in distance]
    assert metric.rankings()[1].tolist() == expected


def test_scores_are_float32_under_autocast() -> None:
    generator = torch.Generator().manual_seed(0)
    query, document = (torch.randn(rows, 16, generator=generator) for rows in (3, 40))
    metric = StreamingRetrieval({0: {0: 1}}, query_count=3, document_count=40, measures=["map@40"])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        metric.update("query", query, torch.arange(3))
        metric.update("document", document, torch.arange(40))
    torch.testing.assert_close(metric.rankings()[0], (query @ document.T).sort(descending=True).values)


def test_reset_starts_a_new_pass_of_any_dim() -> None:
    case = Case(5)
    metric = case.full_metric()
    expected = values_of(metric)
    metric.reset()
    metric.update("query", torch.cat([case.query, 0 * case.query], 1), torch.arange(12))
    metric.update("document", torch.cat([case.document, case.document], 1), torch.arange(60))
    assert values_of(metric) == expected


def test_copies_move_and_leave_nothing_in_a_checkpoint() -> None:
    metric = Case(6).full_metric()
    assert metric.state_dict() == {}
    moved = copy.deepcopy(metric).to("cpu")
    assert values_of(moved) == values_of(metric)


def test_a_metric_inside_a_half_precision_module_still_ranks_in_float32() -> None:
    case = Case(7)
    metric = torch.nn.ModuleDict({"metric": case.metric()}).bfloat16()["metric"]
    metric.update("query", case.query, torch.arange(12))
    metric.update("document", case.document, torch.arange(60))
    assert metric.query_embeddings.dtype == torch.float32
    assert values_of(metric) == values_of(case.full_metric())


@pytest.mark.parametrize("seed", range(40, 52))
def test_any_batch_and_tile_sizes_equal_trec_eval_for_each_query(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(seed)
    batch, tile_scores, tile_documents = (
        int(torch.randint(1, most, (), generator=generator)) for most in (70, 200, 40)
    )
    monkeypatch.setattr("lightning_jv5.metrics.retrieval.TILE_SCORES", tile_scores)
    monkeypatch.setattr("lightning_jv5.metrics.retrieval.TILE_DOCUMENTS", tile_documents)
    case = Case(seed)
    metric = case.metric()
    metric.update("query", case.query, torch.arange(12))
    for rows in torch.randperm(60, generator=generator).split(batch):
        metric.update("document", case.document[rows], rows)
    assert_equals_trec_eval(metric, case)


def pairs_by_query(seed: int, share: float) -> dict[int, list[int]]:
    chosen = torch.rand(12, 60, generator=torch.Generator().manual_seed(seed)) < share
    return {query: row.nonzero().flatten().tolist() for query, row in enumerate(chosen)}


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("batch", [1, 13, 60])
def test_excluded_documents_are_taken_out_of_the_run_alone_as_in_beir(seed: int, batch: int) -> None:
    case, excluded = Case(seed), pairs_by_query(seed, 0.3)
    metric = case.metric(excluded=excluded)
    metric.update("query", case.query, torch.arange(12))
    for rows in torch.arange(60).split(batch):
        metric.update("document", case.document[rows], rows)
    assert any(set(excluded[query]) & grades.keys() for query, grades in case.judgements.items())
    assert_equals_trec_eval(metric, case, lambda query, row: row not in excluded[query])


def test_a_query_s_own_document_is_excluded_by_its_row() -> None:
    metric = StreamingRetrieval(
        {0: {0: 1, 1: 1}}, query_count=1, document_count=2, measures=["recall@2"], excluded={0: 0}
    )
    metric.update("query", torch.ones(1, 2), torch.tensor([0]))
    metric.update("document", torch.ones(2, 2), torch.arange(2))
    assert metric.rankings()[1].tolist() == [[1, -1]]
    assert values_of(metric) == {"recall@2": 0.5}


@pytest.mark.parametrize("share", [0.03, 0.7])  # pair by pair, or taken out of the product of all
@pytest.mark.parametrize("batch", [1, 13, 60])
@pytest.mark.parametrize("seed", range(4))
def test_candidates_alone_are_ranked(seed: int, batch: int, share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lightning_jv5.metrics.retrieval.TILE_SCORES", 50)
    monkeypatch.setattr("lightning_jv5.metrics.retrieval._GATHERED", 28)  # seven pairs at once
    case, candidates, excluded = Case(seed), pairs_by_query(seed, share), pairs_by_query(seed + 100, 0.2)
    candidates[3] = []
    metric = case.metric(
        candidates={query: [*rows, *rows[:2]] for query, rows in candidates.items()}, excluded=excluded
    )
    metric.update("query", case.query, torch.arange(12))
    for rows in torch.cat([torch.arange(60), torch.arange(9)]).split(batch):
        metric.update("document", case.document[rows], rows)
    assert metric.rankings()[1][3].tolist() == [-1] * 40
    assert metric.per_query()["ndcg@10"][3] == 0.0
    assert_equals_trec_eval(metric, case, lambda query, row: row in candidates[query] and row not in excluded[query])


def test_pair_by_pair_equals_taking_pairs_out_of_the_whole_product(monkeypatch: pytest.MonkeyPatch) -> None:
    case, candidates = Case(11), pairs_by_query(11, 0.4)
    for view in (None, View(dim=3, precision="binary"), View(precision="asymmetric"), View(precision="rescored")):
        found = []
        for sparse in (0, 10**9):
            monkeypatch.setattr("lightning_jv5.metrics.retrieval._SPARSE", sparse)
            found.append(case.full_metric(["map@5"], view=view, candidates=candidates).rankings())
        assert found[0][0].equal(found[1][0])
        assert found[0][1].equal(found[1][1])


def test_queries_without_judgements_need_no_candidates() -> None:
    metric = StreamingRetrieval({1: {0: 1}}, query_count=2, document_count=1, measures=["p@2"], candidates={1: [0]})
    metric.update("query", torch.eye(2), torch.arange(2))
    metric.update("document", torch.ones(1, 2), torch.tensor([0]))
    assert metric.rankings()[1].tolist() == [[-1, -1], [0, -1]]
    assert values_of(metric) == {"p@2": 0.5}


class FloatCase:
    """Random floats: sign codes of 16 coordinates tie often, floats never."""

    def __init__(self, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.query, self.document = (torch.randn(count, 20, generator=generator) for count in (9, 150))
        self.document[5] = self.document[7] = self.query[0]  # but for two: ties by id, descending

    def metric(self, precision: Precision = "rescored") -> StreamingRetrieval:
        return StreamingRetrieval(
            {query: {query: 1} for query in range(9)},
            query_count=9,
            document_count=150,
            measures=["ndcg@25", "mrr@25"],
            view=View(dim=16, precision=precision),
        )

    def full_metric(self, precision: Precision = "rescored") -> StreamingRetrieval:
        metric = self.metric(precision)
        metric.update("query", self.query, torch.arange(9))
        metric.update("document", self.document, torch.arange(150))
        return metric


@pytest.mark.parametrize("seed", range(5))
def test_rescored_finds_by_signs_and_orders_by_floats(seed: int) -> None:
    case = FloatCase(seed)
    cut = [View(dim=16).cut(side).double() for side in (case.query, case.document)]
    floats = (cut[0] @ cut[1].T).tolist()
    signs = [[sum(a.sign() * b.sign()) for b in cut[1]] for a in cut[0]]
    scores, rows = case.full_metric().rankings()
    for query in range(9):
        found = sorted(range(150), key=lambda row: (signs[query][row], row), reverse=True)[:25]
        best = sorted(found, key=lambda row: (floats[query][row], row), reverse=True)
        assert rows[query].tolist() == best
        assert scores[query].tolist() == pytest.approx([floats[query][row] for row in best], abs=1e-7)
    assert rows[0, :2].tolist() == [7, 5]


@pytest.mark.parametrize("batch", [1, 7, 40, 150])
def test_rescored_scores_do_not_change_with_batches_tiles_or_repeats(
    batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = FloatCase(0)
    scores, rows = case.full_metric().rankings()
    monkeypatch.setattr("lightning_jv5.metrics.retrieval.TILE_SCORES", 100)
    monkeypatch.setattr("lightning_jv5.metrics.retrieval._GATHERED", 48)
    metric = case.metric()
    metric.update("query", case.query, torch.arange(9))
    shuffled = torch.randperm(150, generator=torch.Generator().manual_seed(batch))
    for some in torch.cat([shuffled, shuffled[:20]]).split(batch):
        metric.update("document", case.document[some], some)
    assert metric.rankings()[0].equal(scores)
    assert metric.rankings()[1].equal(rows)
    monkeypatch.setattr("lightning_jv5.metrics.retrieval.keep_best", keep_best_of_all)  # as on a GPU
    assert case.full_metric().rankings()[0].equal(scores)


def test_rescored_stands_between_what_bits_and_what_floats_alone_find() -> None:
    found = {precision: mean_reciprocal_rank(precision) for precision in ("binary", "rescored", "float")}
    assert found["binary"] + 0.02 < found["rescored"] < found["float"]


def mean_reciprocal_rank(precision: Precision) -> float:
    """MRR of documents that are near their query, over some corpora."""
    total = 0.0
    for seed in range(8):
        case = FloatCase(seed)
        case.document[:9] = case.query + 1.5 * torch.randn(9, 20, generator=torch.Generator().manual_seed(99 + seed))
        total += values_of(case.full_metric(precision))["mrr@25"]
    return total / 8


def test_rescored_forgets_at_a_reset() -> None:
    case = FloatCase(2)
    metric = case.full_metric()
    before = metric.rankings()[1]
    metric.reset()
    metric.update("query", -case.query, torch.arange(9))
    metric.update("document", -case.document, torch.arange(150))
    assert metric.rankings()[1].equal(before)


def _rank_of_many(rank: int, world: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world)
    try:
        case = Case(8)
        metric = case.metric()
        metric.update("query", case.query, torch.arange(12))
        # Uneven shares that overlap, as when a sampler pads; the third rank has none.
        share = [torch.arange(45), torch.arange(40, 60), torch.arange(0)][rank]
        for rows in share.split(7):
            metric.update("document", case.document[rows], rows)
        computed = values_of(metric)
        assert metric.is_complete()
        assert metric.documents_seen == 60
        scores, rows = metric.rankings()
        torch.save((computed, scores, rows), f"{folder}/{rank}.pt")
        by_query = metric.per_query()
        rescored = FloatCase(3).metric()
        rescored.update("query", FloatCase(3).query, torch.arange(9))
        mine = torch.cat([torch.arange(rank, 150, world), torch.arange(5)])  # the last of them on every rank
        for some in mine.split(11):
            rescored.update("document", FloatCase(3).document[some], some)
        reranked = case.metric(candidates=pairs_by_query(8, 0.1), excluded=pairs_by_query(9, 0.1))
        reranked.update("query", case.query, torch.arange(12))
        for some in torch.arange(rank, 60, world).split(7):
            reranked.update("document", case.document[some], some)
        torch.save((by_query, rescored.rankings(), reranked.rankings()), f"{folder}/{rank}_more.pt")
        local_bits = metric.document_bits.clone()
        metric.reset()
        metric.update("query", case.query, torch.arange(12))
        metric.update("document", case.document[: 10 * rank], torch.arange(10 * rank))
        assert metric.documents_seen == 10 * (world - 1)
        assert not metric.is_complete()
        assert rank == 0 or not metric.document_bits.equal(local_bits)
    finally:
        dist.destroy_process_group()


@pytest.mark.parametrize("world", [2, 3])
def test_ranks_with_uneven_shares_equal_one_process(world: int, tmp_path: Path) -> None:
    mp.spawn(_rank_of_many, args=(world, str(tmp_path)), nprocs=world)
    whole = Case(8).full_metric()
    for rank in range(world):
        computed, scores, rows = torch.load(tmp_path / f"{rank}.pt")
        assert computed == values_of(whole)
        assert scores.equal(whole.rankings()[0])
        assert rows.equal(whole.rankings()[1])
        by_query, rescored, reranked = torch.load(tmp_path / f"{rank}_more.pt")
        for name, values in by_query.items():
            torch.testing.assert_close(values, whole.per_query()[name], rtol=0, atol=0, equal_nan=True)
        alone = FloatCase(3).full_metric()
        assert all(one.equal(other) for one, other in zip(rescored, alone.rankings(), strict=True))
        alone = Case(8).full_metric(candidates=pairs_by_query(8, 0.1), excluded=pairs_by_query(9, 0.1))
        assert all(one.equal(other) for one, other in zip(reranked, alone.rankings(), strict=True))


@pytest.mark.parametrize(
    ("role", "embeddings", "rows", "message"),
    [
        ("passage", torch.ones(1, 4), [0], "need 'query' or 'document'"),
        ("document", torch.ones(1, 4), [0], r"documents after 0 of 2 queries.*all queries first"),
        ("query", torch.ones(4), [0], r"Got embeddings \(4,\)"),
        ("query", torch.ones(2, 4), [0], r"and rows \(1,\); need \(texts, dim\) and \(texts,\)"),
        ("query", torch.ones(1, 4), [2], "Got query rows 2 to 2; need 0 to 1"),
        ("query", torch.full((1, 4), torch.nan), [0], "NaN or infinite embeddings of 1 texts"),
    ],
)
def test_first_update_says_what_is_wrong(role: str, embeddings: Tensor, rows: list[int], message: str) -> None:
    metric = StreamingRetrieval({0: {0: 1}}, query_count=2, document_count=3)
    with pytest.raises(ValueError, match=message):
        metric.update(role, embeddings, torch.tensor(rows))


def test_later_update_says_what_is_wrong() -> None:
    metric = StreamingRetrieval({0: {0: 1}}, query_count=2, document_count=3)
    metric.update("query", torch.ones(1, 4), torch.tensor([1]))
    with pytest.raises(ValueError, match=r"documents after 1 of 2 queries"):
        metric.update("document", torch.ones(1, 4), torch.tensor([0]))
    with pytest.raises(ValueError, match=r"Got embeddings of 5 coordinates after queries of 4"):
        metric.update("query", torch.ones(1, 5), torch.tensor([0]))
    metric.update("query", torch.ones(1, 4), torch.tensor([0]))
    with pytest.raises(ValueError, match=r"Got embeddings of 5 coordinates after queries of 4"):
        metric.update("document", torch.ones(1, 5), torch.tensor([0]))
    metric.update("document", torch.ones(1, 4), torch.tensor([0]))
    with pytest.raises(ValueError, match=r"Got queries after documents.*reset\(\)"):
        metric.update("query", torch.ones(1, 4), torch.tensor([0]))


def test_bad_texts_that_update_did_not_look_at_are_refused_by_compute() -> None:
    metric = Case(9).full_metric()
    metric.bad_texts += 3
    with pytest.raises(ValueError, match="NaN or infinite embeddings of 3 texts"):
        metric.compute()


@pytest.mark.parametrize(
    ("judgements", "options", "message"),
    [
        ({}, {}, "Got no judgements"),
        ({0: {}}, {}, "Got no judgements"),
        ({2: {0: 1}}, {}, "judgements of query rows 2 to 2; need 0 to 1"),
        ({0: {3: 1}}, {}, "judgements of document rows 3 to 3; need 0 to 2"),
        ({0: {0: 1}}, {"measures": []}, "Got no measures"),
        ({0: {0: 1}}, {"measures": ["hits@3"]}, "need one of ndcg"),
        (
            {0: {0: 1}},
            {"tie_order": torch.tensor([0, 1])},
            r"Got a tie order of shape \(2,\); need each of 0 to 2 once",
        ),
        ({0: {0: 1}}, {"tie_order": torch.tensor([0, 1, 1])}, "need each of 0 to 2 once"),
        ({0: {0: 1}}, {"excluded": {2: 0}}, "excluded documents with query rows 2 to 2; need 0 to 1"),
        ({0: {0: 1}}, {"excluded": {0: [3]}}, "excluded documents with document rows 3 to 3; need 0 to 2"),
        ({0: {0: 1}}, {"candidates": {0: [-1, 2]}}, "candidates with document rows -1 to 2; need 0 to 2"),
        ({0: {0: 1}, 1: {0: 1}}, {"candidates": {0: [1]}}, "no candidates for 1 judged queries, such as row 1"),
    ],
)
def test_constructor_says_what_is_wrong(
    judgements: dict[int, dict[int, int]], options: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        StreamingRetrieval(judgements, query_count=2, document_count=3, **options)  # type: ignore[arg-type]


def test_the_precision_of_training_is_left_as_it_was() -> None:
    backend = torch.backends.mkldnn.matmul
    before = backend.fp32_precision
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        backend.fp32_precision = "bf16"
        try:
            Case(10).full_metric()
            assert backend.fp32_precision == "bf16"
        finally:
            backend.fp32_precision = before


def test_what_is_shared_must_be_of_the_same_data() -> None:
    judgements = Judgements({0: {0: 1}}, query_count=2, document_count=4)
    with pytest.raises(ValueError, match="Got judgements of 2 queries and 4 documents; need 2 and 3"):
        StreamingRetrieval(judgements, query_count=2, document_count=3)
    order = TieOrder(torch.arange(4), document_count=4)
    with pytest.raises(ValueError, match="Got a tie order of 4 documents; need one of 3"):
        StreamingRetrieval({0: {0: 1}}, query_count=2, document_count=3, tie_order=order)


def test_reranking_keeps_no_more_keys_than_the_longest_list() -> None:
    case = Case(0)
    candidates = {query: [query, query + 20, query + 40] for query in range(12)}
    metric = case.full_metric(candidates=candidates, excluded={query: query for query in range(11)})
    assert metric.keys.shape == (12, 3)
    assert metric.rankings()[1].shape == (12, 40)
    assert case.metric(candidates={query: [] for query in range(12)}).keys.shape == (12, 1)
    assert case.metric(["map@500"]).keys.shape == (12, 60)
