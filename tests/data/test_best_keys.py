from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from lightning_jv5.data import best_keys as module
from lightning_jv5.data.best_keys import (
    NOTHING,
    Carried,
    keep_best,
    keep_best_of_all,
    keep_exact_best,
    keep_pairs,
    pack,
    scores_of,
    ties_of,
)

QUERIES, DOCUMENTS = 9, 80


def sorted_keys(scores: Tensor, ties: Tensor, depth: int) -> list[list[tuple[float, int]]]:
    """Score and tie order of the best, by sorting all in Python."""
    found = []
    for row in scores.tolist():
        pairs = [(score, tie) for score, tie in zip(row, ties.tolist(), strict=True) if score != -torch.inf]
        found.append(sorted(pairs, reverse=True)[:depth] + [(-torch.inf, -1)] * (depth - len(pairs)))
    return found


def contents(keys: Tensor) -> list[list[tuple[float, int]]]:
    rows = zip(scores_of(keys).tolist(), ties_of(keys).tolist(), strict=True)
    return [list(zip(scores, ties, strict=True)) for scores, ties in rows]


@pytest.mark.parametrize("few", [-1.0, 0.25, 1.0])  # the best of each tile are found first always; as it is; never
@pytest.mark.parametrize("keep", [keep_best, keep_best_of_all])
@pytest.mark.parametrize("run", [1, 5, 32])  # one by one; in tiles of 80 several; rows whole
@pytest.mark.parametrize("depth", [1, 6, 100])
@pytest.mark.parametrize("size", [1, 7, 80])
def test_tiles_leave_the_best_and_what_is_carried_with_them(
    keep: Callable[..., None], size: int, depth: int, run: int, few: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FEW", few)
    monkeypatch.setattr(module, "_RUN", run)
    generator = torch.Generator().manual_seed(size * depth)
    scores = torch.randint(-3, 3, (QUERIES, DOCUMENTS), generator=generator).float()  # ties abound
    scores[torch.rand(QUERIES, DOCUMENTS, generator=generator) < 0.1] = -torch.inf
    ties = torch.randperm(DOCUMENTS, generator=generator)
    keys = torch.full((QUERIES, depth), NOTHING)
    values = torch.full((QUERIES, depth), -1)
    for some in torch.arange(DOCUMENTS).split(size):

        def number(query: Tensor, column: Tensor, some: Tensor = some) -> Tensor:
            return query * 1000 + ties[some[column]]

        keep(keys, scores[:, some], ties[some], Carried(values, number))
    assert contents(keys) == sorted_keys(scores, ties, depth)
    assert values.equal(torch.where(keys == NOTHING, -1, torch.arange(QUERIES)[:, None] * 1000 + ties_of(keys)))


def test_pairs_leave_the_best_and_what_is_carried_with_them() -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randint(-3, 3, (QUERIES, DOCUMENTS), generator=generator).float()
    scores[torch.rand(QUERIES, DOCUMENTS, generator=generator) < 0.8] = -torch.inf
    scores[3] = -torch.inf
    ties = torch.randperm(DOCUMENTS, generator=generator)
    keys, values = torch.full((QUERIES, 6), NOTHING), torch.full((QUERIES, 6), -1)
    query, document = (scores > -torch.inf).nonzero().unbind(1)
    carried = Carried(values, lambda query, column: query * 1000 + ties[column])
    packed = pack(scores[query, document], ties[document])
    for drawn in torch.randperm(len(query), generator=generator).split(11):
        some = drawn.sort().values  # by query
        keep_pairs(keys, query[some], document[some], packed[some], carried)
    assert contents(keys) == sorted_keys(scores, ties, 6)
    assert values.equal(torch.where(keys == NOTHING, -1, torch.arange(QUERIES)[:, None] * 1000 + ties_of(keys)))


def test_what_is_carried_is_computed_for_kept_documents_alone() -> None:
    computed: list[int] = []

    def number(query: Tensor, column: Tensor) -> Tensor:
        computed.extend(column.tolist())
        return column

    keys, values = torch.full((1, 2), NOTHING), torch.full((1, 2), -1)
    keep_best(keys, torch.tensor([[1.0, 5.0, 2.0, 4.0]]), torch.arange(4), Carried(values, number))
    keep_best(keys, torch.tensor([[3.0, 4.5, 1.0, 0.0]]), torch.arange(4, 8), Carried(values, number))
    assert computed == [1, 3, 1]
    assert ties_of(keys).tolist() == [[1, 5]]


def test_a_score_that_only_ties_with_the_last_key_enters_by_its_place_among_ties() -> None:
    keys = pack(torch.tensor([[2.0, 1.0]]), torch.tensor([[9, 5]]))
    keep_best(keys, torch.tensor([[1.0, -1.0, -1.0, -1.0, -1.0]]), torch.tensor([4, 0, 1, 2, 3]))
    assert ties_of(keys).tolist() == [[9, 5]]
    keep_best(keys, torch.tensor([[1.0, -1.0, -1.0, -1.0, -1.0]]), torch.tensor([6, 0, 1, 2, 3]))
    assert ties_of(keys).tolist() == [[9, 6]]


@pytest.mark.parametrize("few", [-1.0, 0.25, 1.0])
@pytest.mark.parametrize("run", [1, 5, 32])  # one by one; in tiles of 80 several; rows whole
@pytest.mark.parametrize("depth", [1, 6, 100])
@pytest.mark.parametrize("size", [1, 7, 80])
def test_scores_off_by_less_than_the_slack_leave_the_exact_best(
    size: int, depth: int, run: int, few: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FEW", few)
    monkeypatch.setattr(module, "_RUN", run)
    generator = torch.Generator().manual_seed(size * depth)
    exact = torch.randint(-3, 3, (QUERIES, DOCUMENTS), generator=generator).float()
    near = exact + torch.empty(QUERIES, DOCUMENTS).uniform_(-0.9, 0.9, generator=generator)  # also in another order
    exact[:, 3] = near[:, 3] = -torch.inf
    ties = torch.randperm(DOCUMENTS, generator=generator)
    keys = torch.full((QUERIES, depth), NOTHING)
    for some in torch.arange(DOCUMENTS).split(size):
        tile = exact[:, some]
        keep_exact_best(keys, near[:, some], ties[some], 0.9, lambda query, column, tile=tile: tile[query, column])
    assert contents(keys) == sorted_keys(exact, ties, depth)
