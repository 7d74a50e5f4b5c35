import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch import distributed as dist
from torch import multiprocessing as mp

from lightning_jv5.metrics import Precision
from lightning_jv5.rebuildable import describe, rebuild
from lightning_jv5.tasks import (
    BitextMiningTask,
    ClassificationTask,
    ClusteringTask,
    EmbeddedTexts,
    Evaluation,
    EvaluationTask,
    PairClassificationTask,
    STSTask,
    View,
    evaluate,
)

from .labelled_texts import encode_words, judged_pairs, labelled, one_of_each, scored_pairs, translations

VIEWS = (View(), View(dim=4), View(precision="binary"), View(dim=4, precision="binary"))
MEASURES = {
    "sts": ["spearman", "pearson"],
    "duplicates": ["ap", "accuracy", "f1"],
    "translations": ["f1", "accuracy", "precision", "recall"],
    "candidates": ["map@1000", "mrr@10", "ndcg@10"],
    "topics": ["v_measure", "v_measure_std"],
    "intents": ["accuracy", "accuracy_std", "f1", "knn_accuracy"],
}


def scores_in_one_process() -> list[tuple[dict[str, float], bool]]:
    scores = evaluate(encode_words, one_of_each(), VIEWS, progress=False)
    return [(score.values, score.complete) for score in scores]


def test_every_view_of_one_pass_scores_every_measure() -> None:
    scores = evaluate(encode_words, one_of_each(), VIEWS, progress=False)
    assert [(score.task, score.view) for score in scores] == [(name, view) for name in MEASURES for view in VIEWS]
    for score in scores:
        assert list(score.values) == MEASURES[score.task]
        assert score.complete
    assert len({score.values[MEASURES[score.task][0]] for score in scores}) > 16


@pytest.mark.parametrize("precision", ["int8", "asymmetric", "rescored"])
def test_other_precisions_are_scored_where_they_say_something_of_the_task(precision: Precision) -> None:
    tasks, view = one_of_each(), View(6, precision)
    scores = evaluate(encode_words, tasks, [View(), view], progress=False)
    assert all(score.complete for score in scores)
    scored = {score.task for score in scores if score.view == view}
    assert (
        scored
        == {
            "int8": set(tasks),
            "asymmetric": {"sts", "duplicates", "translations", "candidates"},
            "rescored": {"translations"},
        }[precision]
    )


def test_scores_repeat_exactly_and_touch_no_global_randomness() -> None:
    def states() -> list[Any]:
        return [random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()]

    before = states()
    first = scores_in_one_process()
    assert states() == before
    random.seed(9), np.random.seed(9), torch.manual_seed(9)
    assert scores_in_one_process() == first


def _evaluate_on_a_rank(rank: int, world: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world)
    try:
        encoded: list[str] = []

        def encode(texts: Sequence[str], role: str) -> Tensor:
            encoded.extend(texts)
            return encode_words(texts, role)

        scores = evaluate(encode, one_of_each(), VIEWS, progress=False, batch_texts=9)
        torch.save(([(score.values, score.complete) for score in scores], encoded), f"{folder}/{rank}.pt")
    finally:
        dist.destroy_process_group()


def test_two_ranks_share_the_texts_and_score_as_one(tmp_path: Path) -> None:
    mp.spawn(_evaluate_on_a_rank, args=(2, str(tmp_path)), nprocs=2)
    (first, on_first), (second, on_second) = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    assert first == second
    for (values, complete), (alone, _) in zip(first, scores_in_one_process(), strict=True):
        assert values == pytest.approx(alone, abs=1e-6)
        assert complete
    tasks = one_of_each().values()
    for task in tasks:
        task.prepare()
    parts = [part for task in tasks for part in task.parts()]
    expected = sum(len(part.texts) * (1 if part.sharded else 2) for part in parts)
    assert len(on_first) + len(on_second) == expected
    assert abs(len(on_first) - len(on_second)) <= len(parts)


def breakdowns(batch: int, rank: int = 0, world: int = 1) -> dict[str, dict[str, dict[str, float]]]:
    """Groups of a view of each task that has the texts of one rank, in batches of this size."""
    view = View(6)
    tasks = one_of_each()
    for task in tasks.values():
        task.prepare()
    evaluation = Evaluation(tasks, [view])
    for name, task in tasks.items():
        for part in task.parts():
            own = torch.arange(len(part.texts))[rank::world] if part.sharded else torch.arange(len(part.texts))
            for rows in own.split(batch):
                embeddings = encode_words([part.texts[row] for row in rows.tolist()], part.role)
                evaluation.update(EmbeddedTexts(embeddings, rows, name, part.role))
    return {name: evaluation.metric(name, view).breakdown() for name in tasks}


def _break_down_on_a_rank(rank: int, world: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world)
    try:
        torch.save(breakdowns(9, rank, world), f"{folder}/{rank}.pt")
    finally:
        dist.destroy_process_group()


def test_groups_score_alike_in_any_batches_and_on_two_ranks(tmp_path: Path) -> None:
    alone = breakdowns(100)
    languages = ["de", "en"]
    groups = dict.fromkeys(("sts", "duplicates", "translations", "candidates"), languages)
    groups |= {"topics": [], "intents": ["early", "late", "middle"]}
    assert {name: list(found) for name, found in alone.items()} == groups
    for name, found in alone.items():
        for values in found.values():
            assert list(values) == [measure for measure in MEASURES[name] if not measure.endswith("_std")]
    assert len({values["spearman"] for values in alone["sts"].values()}) == 2
    mp.spawn(_break_down_on_a_rank, args=(2, str(tmp_path)), nprocs=2)
    for other in (breakdowns(7), *(torch.load(tmp_path / f"{rank}.pt") for rank in range(2))):
        for name, found in alone.items():
            assert other[name].keys() == found.keys()
            for group, values in found.items():
                assert other[name][group] == pytest.approx(values, abs=1e-6)


def test_a_pass_that_is_cut_short_has_no_groups() -> None:
    task = STSTask(scored_pairs(), group="lang")
    task.prepare()
    metric = task.metric()
    metric.update("document", encode_words(task.parts()[0].texts[:5], "document"), torch.arange(5))
    assert metric.breakdown() == {}


def test_metrics_of_a_task_are_independent_and_its_data_read_once() -> None:
    source = scored_pairs()
    task = STSTask(source)
    for _ in range(2):
        task.prepare()
    assert source.loads == 1
    one, other = task.metric(), task.metric()
    one.update("document", torch.ones(1, 3), torch.tensor([0]))
    assert (one.texts_seen, len(other.rows)) == (1, 0)


@pytest.mark.parametrize("name", MEASURES)
def test_a_checkpoint_rebuilds_the_task(name: str) -> None:
    task = one_of_each()[name]
    scores = [evaluate(encode_words, {name: each}, progress=False) for each in (task, rebuild(describe(task)))]
    assert scores[0] == scores[1]


@pytest.mark.parametrize("name", MEASURES)
def test_bad_embeddings_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="NaN or infinite embeddings of"):
        evaluate(lambda texts, role: encode_words(texts, role) * torch.nan, {name: one_of_each()[name]}, progress=False)
    with pytest.raises(ValueError, match="embeddings of 12 coordinates for a view of 13"):
        evaluate(encode_words, {name: one_of_each()[name]}, [View(dim=13)], progress=False)


MAKE: dict[str, Callable[..., EvaluationTask]] = {
    "sts": lambda **settings: STSTask(scored_pairs(), **settings),
    "duplicates": lambda **settings: PairClassificationTask(judged_pairs(), **settings),
    "translations": lambda **settings: BitextMiningTask(translations(), **settings),
    "topics": lambda **settings: ClusteringTask(labelled(9, seed=0), **settings),
    "intents": lambda **settings: ClassificationTask(labelled(9, seed=0), labelled(9, seed=0), **settings),
}


KNOWN = {
    "sts": "spearman, p",
    "duplicates": "ap, accuracy, f1",
    "translations": "f1, accuracy, p",
    "topics": "v_m",
    "intents": "accuracy, f1, k",
}


@pytest.mark.parametrize(("name", "known"), KNOWN.items())
def test_unknown_measures_and_roles_are_refused_before_anything_loads(name: str, known: str) -> None:
    with pytest.raises(ValueError, match=f"Got main_metric 'ndcg@10'; need one of {known}"):
        MAKE[name](main_metric="ndcg@10")
    with pytest.raises(ValueError, match="Got role 'passage'; need 'query' or 'document'"):
        MAKE[name](role="passage")
    with pytest.raises(ValueError, match=r"Call prepare\(\) first"):
        MAKE[name]().parts()
    with pytest.raises(ValueError, match=r"Call prepare\(\) first"):
        MAKE[name]().metric()
