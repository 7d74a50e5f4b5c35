import math

import pytest
import torch
from scipy import stats
from torch import Tensor

from lightning_jv5.metrics import CosineCorrelation, pearson, spearman
from lightning_jv5.metrics.correlation import average_ranks, pair_cosines


def random_values(seed: int, *, rows: int = 40, ties: bool) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    if ties:
        left, right = (torch.randint(0, 6, (rows,), generator=generator) for _ in range(2))
        return left + right, right
    left = torch.randn(rows, generator=generator, dtype=torch.float64)
    return left, torch.randn(rows, generator=generator, dtype=torch.float64) + left


def slow_pearson(left: list[float], right: list[float]) -> float:
    """Covariance over the product of the standard deviations, in plain Python."""
    means = [math.fsum(values) / len(values) for values in (left, right)]
    covariance = math.fsum((x - means[0]) * (y - means[1]) for x, y in zip(left, right, strict=True))
    squares = [math.fsum((x - mean) ** 2 for x in values) for values, mean in zip((left, right), means, strict=True)]
    return covariance / math.sqrt(squares[0] * squares[1])


def slow_ranks(values: list[float]) -> list[float]:
    """Each rank is one more than the number of smaller values, and half of the other equal ones."""
    return [1 + sum(other < x for other in values) + (sum(other == x for other in values) - 1) / 2 for x in values]


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(10))
def test_correlations_equal_scipy_and_the_slow_references(seed: int, ties: bool) -> None:
    left, right = random_values(seed, ties=ties)
    assert spearman(left, right).item() == pytest.approx(stats.spearmanr(left, right).statistic, abs=1e-12)
    assert pearson(left, right).item() == pytest.approx(stats.pearsonr(left, right).statistic, abs=1e-12)
    lists = left.tolist(), right.tolist()
    assert pearson(left, right).item() == pytest.approx(slow_pearson(*lists), abs=1e-12)
    assert spearman(left, right).item() == pytest.approx(slow_pearson(*map(slow_ranks, lists)), abs=1e-12)
    assert average_ranks(left).tolist() == slow_ranks(lists[0]) == stats.rankdata(left).tolist()


def test_close_values_are_told_apart_although_float32_would_not() -> None:
    left = 1 + torch.tensor([3.0, 1.0, 2.0], dtype=torch.float64) * 1e-12
    assert left.float().unique().numel() == 1
    assert spearman(left, torch.tensor([3, 1, 2])).item() == 1.0
    assert pearson(left, torch.tensor([3, 1, 2])).item() == pytest.approx(1.0, abs=1e-3)


def test_a_constant_says_nothing() -> None:
    constant, values = torch.full((3,), 0.1, dtype=torch.float64), torch.tensor([1.0, 2.0, 4.0])
    assert [measure(constant, values).item() for measure in (pearson, spearman)] == [0.0, 0.0]
    assert [measure(values, constant).item() for measure in (pearson, spearman)] == [0.0, 0.0]


def test_cosines_of_equal_texts_are_exactly_one_whatever_the_numbers() -> None:
    vectors = torch.randn(200, 7, generator=torch.Generator().manual_seed(0))
    assert pair_cosines(vectors, vectors).eq(1.0).all()
    others = vectors.roll(1, 0)
    expected = torch.nn.functional.cosine_similarity(vectors.double(), others.double())
    torch.testing.assert_close(pair_cosines(vectors, others), expected, rtol=0, atol=1e-12)


def correlation_of(embeddings: Tensor, pairs: list[tuple[int, int]], scores: list[float]) -> dict[str, float]:
    metric = CosineCorrelation(pairs, scores, text_count=len(embeddings))
    metric.update("document", embeddings, torch.arange(len(embeddings)))
    return {name: value.item() for name, value in metric.compute().items()}


@pytest.mark.parametrize("binary", [False, True])
def test_the_metric_equals_scipy_on_float64_cosines(binary: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    embeddings = torch.randn(20, 8, generator=generator)
    embeddings = embeddings.sign() if binary else embeddings
    pairs = [(int(a), int(b)) for a, b in torch.randint(0, 20, (60, 2), generator=generator)]
    scores = torch.randint(0, 11, (60,), generator=generator).div(2).tolist()
    left, right = (embeddings[[pair[side] for pair in pairs]].double() for side in (0, 1))
    cosines = (left * right).sum(1) / (left.norm(dim=1) * right.norm(dim=1))
    if binary:
        cosines = (cosines * 8).round() / 8  # whole numbers, without rounding errors between ties
    found = correlation_of(embeddings, pairs, scores)
    assert found["pearson"] == pytest.approx(stats.pearsonr(cosines, scores).statistic, abs=1e-6)
    if binary:
        assert cosines.unique().numel() < 10
        assert found["spearman"] == pytest.approx(stats.spearmanr(cosines, scores).statistic, abs=1e-6)
    else:
        same = [a == b for a, b in pairs]
        cosines[torch.tensor(same)] = 1.0
        assert found["spearman"] == pytest.approx(stats.spearmanr(cosines, scores).statistic, abs=1e-6)


def test_a_collapsed_model_scores_zero() -> None:
    assert correlation_of(torch.ones(3, 4), [(0, 1), (1, 2), (0, 2)], [1, 2, 3]) == {"spearman": 0.0, "pearson": 0.0}


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match=r"Got values \(3,\) and \(2,\); need \(rows,\) of both"):
        pearson(torch.ones(3), torch.ones(2))
    with pytest.raises(ValueError, match="at least two rows"):
        spearman(torch.ones(1), torch.ones(1))
    with pytest.raises(ValueError, match="Got 1 pairs and 1 scores; need as many of both, and at least two"):
        CosineCorrelation([(0, 1)], [1.0], text_count=2)
