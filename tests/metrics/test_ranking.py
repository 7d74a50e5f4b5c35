import pytest
import torch

from lightning_jv5.metrics.ranking import RANKING_MEASURES, parse_measure

from .references import slow_measure


@pytest.mark.parametrize("k", [1, 3, 10, 50])
@pytest.mark.parametrize("name", RANKING_MEASURES)
def test_measure_matches_slow_reference(name: str, k: int) -> None:
    generator = torch.Generator().manual_seed(k)
    grades = torch.randint(-1, 4, (20, 30), generator=generator)
    judged = grades.clamp(min=0).double()
    gains, ideal_gains = judged[:, :12], judged.sort(descending=True).values
    measured = RANKING_MEASURES[name](gains, ideal_gains, k)
    expected = [slow_measure(name, k, list(range(12)), dict(enumerate(row))) for row in grades.tolist()]
    torch.testing.assert_close(measured, torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("name", RANKING_MEASURES)
def test_measure_is_zero_where_nothing_is_relevant(name: str) -> None:
    assert RANKING_MEASURES[name](torch.zeros(1, 3), torch.zeros(1, 2), 10).tolist() == [0.0]


@pytest.mark.parametrize("name", ["ndgc@10", "ndcg", "ndcg@0", "ndcg@-1", "ndcg@10 ", "@10", "", "map", "p"])
def test_unknown_measure_is_refused_with_the_known_ones(name: str) -> None:
    with pytest.raises(ValueError, match=r"need one of ndcg, recall, p, mrr, map, then '@'"):
        parse_measure(name)
