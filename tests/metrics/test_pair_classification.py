import itertools
from collections.abc import Sequence

import pytest
import torch
from sklearn.metrics import accuracy_score, average_precision_score, f1_score
from torch import Tensor

from lightning_jv5.metrics import PairClassification, pair_measures


def random_pairs(seed: int, *, ties: bool) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    positive = torch.rand(40, generator=generator) < 0.3
    positive[:2] = torch.tensor([True, False])
    cosines = torch.randn(40, generator=generator, dtype=torch.float64) * 0.3 + positive * 0.3
    return (cosines * 5).round() / 5 if ties else cosines, positive


def slow_best(cosines: Sequence[float], positive: Sequence[bool], score: str) -> float:
    """Try a threshold between any two neighbouring cosines that differ."""
    measure = {"accuracy": accuracy_score, "f1": f1_score}[score]
    ordered = sorted(set(cosines))
    thresholds = [(low + high) / 2 for low, high in itertools.pairwise(ordered)]
    return max((measure(positive, [cosine > at for cosine in cosines]) for at in thresholds), default=0.0)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(10))
def test_measures_equal_scikit_learns_at_every_threshold(seed: int, ties: bool) -> None:
    cosines, positive = random_pairs(seed, ties=ties)
    found = pair_measures(cosines, positive)
    lists = cosines.tolist(), positive.tolist()
    assert found["ap"] == pytest.approx(average_precision_score(positive.numpy(), cosines.numpy()), abs=1e-12)
    assert found["accuracy"] == pytest.approx(slow_best(*lists, "accuracy"), abs=1e-12)
    assert found["f1"] == pytest.approx(slow_best(*lists, "f1"), abs=1e-12)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(seed))
    assert pair_measures(cosines[order], positive[order]) == pytest.approx(found, abs=1e-12)


def test_without_a_threshold_there_is_neither_accuracy_nor_f1() -> None:
    found = pair_measures(torch.ones(4), torch.tensor([True, False, False, False]))
    assert found == {"ap": 0.25, "accuracy": 0.0, "f1": 0.0}


def test_a_threshold_below_or_above_all_pairs_does_not_count() -> None:
    found = pair_measures(torch.tensor([0.1, 0.5, 0.4]), torch.tensor([True, False, True]))
    assert found["accuracy"] == pytest.approx(1 / 3)  # accepting all would give 2/3
    assert found["f1"] == pytest.approx(0.5)  # and an F1 of 0.8


def metric_of(groups: list[str | None] | None = None) -> PairClassification:
    generator = torch.Generator().manual_seed(0)
    pairs = [(int(a), int(b)) for a, b in torch.randint(0, 20, (60, 2), generator=generator)]
    labels = [a % 3 == b % 3 for a, b in pairs]
    metric = PairClassification(pairs, labels, text_count=20, groups=groups)
    metric.update("document", torch.randn(20, 8, generator=generator), torch.arange(20))
    return metric


def test_groups_are_scored_by_themselves_if_they_have_both_classes() -> None:
    labels = metric_of()._positive.tolist()
    groups = ["only" if label and row < 30 else [None, "a", "b"][row % 3] for row, label in enumerate(labels)]
    metric = metric_of(groups)
    assert metric.compute() == metric_of().compute()
    found = metric.breakdown()
    assert list(found) == ["a", "b"]
    embeddings = metric.embeddings[0].double()
    for group, values in found.items():
        rows = [row for row, name in enumerate(groups) if name == group]
        left, right = embeddings[metric._left[rows]], embeddings[metric._right[rows]]
        cosines = torch.nn.functional.cosine_similarity(left, right).numpy().round(12)
        expected = average_precision_score([labels[row] for row in rows], cosines)
        assert values["ap"] == pytest.approx(expected, abs=1e-9)
    assert found["a"] != found["b"]


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match=r"Got cosines \(3,\) and classes \(2,\); need \(pairs,\) of both"):
        pair_measures(torch.ones(3), torch.ones(2, dtype=torch.bool))
    with pytest.raises(ValueError, match="Got 2 pairs of which 2 are positive; need some of both classes"):
        pair_measures(torch.ones(2), torch.ones(2, dtype=torch.bool))
    with pytest.raises(ValueError, match="Got 2 pairs and 1 labels, of which 1 are positive; need as many of both"):
        PairClassification([(0, 1), (1, 0)], [True], text_count=2)
    with pytest.raises(ValueError, match="Got 2 pairs and 2 labels, of which 0 are positive"):
        PairClassification([(0, 1), (1, 0)], [False, False], text_count=2)
