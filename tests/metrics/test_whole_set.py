import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch import distributed as dist
from torch import multiprocessing as mp

from lightning_jv5.metrics import WholeSetMetric


class Sums(WholeSetMetric):
    """Tells each embedding from each other, and their order."""

    def score(self, embeddings: Tensor) -> dict[str, float]:
        assert embeddings.dtype == torch.float32
        weights = torch.arange(1, len(embeddings) + 1)
        return {"sum": float(embeddings.sum()), "weighted": float((embeddings.sum(1) * weights).sum())}


TEXTS = torch.randint(-9, 10, (12, 3), generator=torch.Generator().manual_seed(0)).float()


def metric_of(rows: list[list[int]]) -> Sums:
    metric = Sums(len(TEXTS), ["sum", "weighted"])
    for batch in rows:
        places = torch.tensor(batch, dtype=torch.int64)
        metric.update("document", TEXTS[places], places)
    return metric


def values_of(metric: WholeSetMetric) -> dict[str, float]:
    return {name: value.item() for name, value in metric.compute().items()}


WHOLE = {"sum": TEXTS.sum().item(), "weighted": (TEXTS.sum(1) * torch.arange(1, 13)).sum().item()}


@pytest.mark.parametrize(
    "rows",
    [
        [list(range(12))],
        [[11, 3, 5], [], [0, 1, 2, 4, 6], [10, 9, 8, 7]],
        [[0, 0, 1], [1, 2, 3], list(range(12)), [11]],
    ],
)
def test_order_splits_and_repeats_do_not_matter(rows: list[list[int]]) -> None:
    metric = metric_of(rows)
    assert values_of(metric) == WHOLE
    assert metric.is_complete()
    assert metric.texts_seen == 12


def test_a_part_is_recognised_and_scores_nothing() -> None:
    metric = metric_of([list(range(11)), [3]])
    assert all(value.isnan() for value in metric.compute().values())
    assert metric.compute().keys() == WHOLE.keys()
    assert (metric.texts_seen, metric.is_complete()) == (11, False)
    metric.update("document", TEXTS[11:], torch.tensor([11]))
    assert values_of(metric) == WHOLE


def test_reset_starts_a_new_pass_of_any_dim() -> None:
    metric = metric_of([list(range(12))])
    metric.reset()
    assert metric.texts_seen == 0
    metric.update("query", TEXTS[:, :1], torch.arange(12))
    assert values_of(metric)["sum"] == TEXTS[:, 0].sum()


def test_what_the_caller_changes_afterwards_does_not_matter() -> None:
    texts, rows = TEXTS.clone(), torch.arange(12)
    metric = Sums(12, ["sum", "weighted"])
    metric.update("document", texts, rows)
    texts.zero_()
    rows.zero_()
    assert values_of(metric) == WHOLE


def test_copies_move_and_leave_nothing_in_a_checkpoint() -> None:
    metric = metric_of([list(range(12))])
    assert metric.state_dict() == {}
    assert values_of(copy.deepcopy(metric).to("cpu")) == WHOLE


def test_embeddings_are_float32_in_half_precision_and_under_autocast() -> None:
    metric = torch.nn.ModuleDict({"metric": Sums(12, ["sum", "weighted"])}).bfloat16()["metric"]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        metric.update("document", TEXTS.bfloat16().requires_grad_(), torch.arange(12))
        assert values_of(metric) == WHOLE


def _rank_of_many(rank: int, world: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world)
    try:
        # Uneven shares that overlap, as when a sampler pads; the third rank has none.
        metric = metric_of([[[0, 2, 4], [6, 8, 10, 1]], [[10, 3], [5, 7, 9, 11]], [[]]][rank])
        torch.save((values_of(metric), metric.is_complete()), f"{folder}/{rank}.pt")
        metric.reset()
        metric.update("document", TEXTS[rank : rank + 1], torch.tensor([rank]))
        assert metric.texts_seen == world
    finally:
        dist.destroy_process_group()


@pytest.mark.parametrize("world", [2, 3])
def test_ranks_with_uneven_shares_equal_one_process(world: int, tmp_path: Path) -> None:
    mp.spawn(_rank_of_many, args=(world, str(tmp_path)), nprocs=world)
    assert [torch.load(tmp_path / f"{rank}.pt") for rank in range(world)] == [(WHOLE, True)] * world


@pytest.mark.parametrize(
    ("embeddings", "rows", "message"),
    [
        (torch.ones(3), [0], r"Got embeddings \(3,\)"),
        (torch.ones(2, 3), [0], r"and rows \(1,\); need \(texts, dim\) and \(texts,\)"),
        (torch.ones(1, 3), [12], "Got rows 12 to 12; need 0 to 11"),
        (torch.ones(1, 3), [-1], "Got rows -1 to -1; need 0 to 11"),
        (torch.full((1, 3), torch.inf), [0], "NaN or infinite embeddings of 1 texts"),
        (torch.ones(1, 4), [0], "embeddings of 4 coordinates after others of 3; need the same"),
    ],
)
def test_update_says_what_is_wrong(embeddings: Tensor, rows: list[int], message: str) -> None:
    metric = metric_of([[5]])
    with pytest.raises(ValueError, match=message):
        metric.update("document", embeddings, torch.tensor(rows))


def test_bad_texts_that_update_did_not_look_at_are_refused_by_compute() -> None:
    metric = metric_of([list(range(12))])
    metric.bad_texts += 3
    with pytest.raises(ValueError, match="NaN or infinite embeddings of 3 texts"):
        metric.compute()
