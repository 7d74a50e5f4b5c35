import pytest
import torch

from lightning_jv5.metrics.judgements import Judgements
from lightning_jv5.metrics.ranking import RANKING_MEASURES

from .references import slow_measure


@pytest.mark.parametrize("name", RANKING_MEASURES)
def test_each_judged_query_is_measured_as_the_slow_reference_does(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    grades = {
        query: {row: int(torch.randint(-1, 4, (), generator=generator)) for row in range(query, 30, 3)}
        for query in (5, 0, 3)
    }
    grades[4] = {}
    rows = torch.stack([torch.randperm(30, generator=generator)[:12] for _ in range(6)])
    rows[3, 4:] = -1  # fewer were found
    judgements = Judgements(grades, query_count=6, document_count=30)
    assert judgements.judged.tolist() == [0, 3, 5]
    for k in (1, 5, 50):
        measured = judgements.measure(rows, {"it": (RANKING_MEASURES[name], k)})["it"]
        rankings = {query: [row for row in rows[query].tolist() if row >= 0] for query in (0, 3, 5)}
        expected = [slow_measure(name, k, rankings[query], grades[query]) for query in (0, 3, 5)]
        torch.testing.assert_close(measured, torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize(
    ("grades", "message"),
    [
        ({0: {}}, "Got no judgements; need the grade of at least one document"),
        ({2: {0: 1}}, "judgements of query rows 2 to 2; need 0 to 1"),
        ({0: {-1: 1}}, "judgements of document rows -1 to -1; need 0 to 2"),
    ],
)
def test_grades_of_what_is_not_there_are_refused(grades: dict[int, dict[int, int]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Judgements(grades, query_count=2, document_count=3)
