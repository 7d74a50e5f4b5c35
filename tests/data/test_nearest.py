import math

import pytest
import torch
from torch import Tensor

from lightning_jv5.data import nearest as module
from lightning_jv5.data.nearest import nearest


def slow_nearest(
    queries: Tensor, corpus: Tensor, depth: int, excluded: set[tuple[int, int]]
) -> tuple[list[list[int]], list[list[float]]]:
    """Every dot product in float64, sorted in Python: by score, then by place in the corpus."""
    found, scores = [], []
    for number, query in enumerate(queries.double()):
        products = [(float(query @ document), row) for row, document in enumerate(corpus.double())]
        allowed = [(-score, row) for score, row in products if (number, row) not in excluded]
        best = sorted(allowed)[:depth] + [(math.inf, -1)] * (depth - len(allowed))
        found.append([row for _, row in best])
        scores.append([-score for score, _ in best])
    return found, scores


def tiles(corpus: Tensor, size: int) -> list[Tensor]:
    return list(corpus.split(size))


def whole_numbers(*shape: int, seed: int) -> Tensor:
    """Few values, so that float32 is exact and ties abound."""
    return torch.randint(-2, 3, shape, generator=torch.Generator().manual_seed(seed)).float()


@pytest.mark.parametrize("size", [1, 7, 64, 300])
@pytest.mark.parametrize("depth", [1, 10, 500])
def test_tiles_give_what_brute_force_gives_ties_by_place_in_the_corpus(
    size: int, depth: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TILE_SCORES", 3 * size)  # queries are divided, too
    monkeypatch.setattr(module, "TILE_DOCUMENTS", 50)
    queries, corpus = whole_numbers(11, 4, seed=0), whole_numbers(300, 4, seed=1)
    generator = torch.Generator().manual_seed(2)
    excluded = torch.stack([torch.randint(count, (40,), generator=generator) for count in (11, 300)]).unique(dim=1)
    found = nearest(queries, tiles(corpus, size), depth=depth, excluded=(excluded[0], excluded[1]))
    rows, scores = slow_nearest(queries, corpus, depth, set(map(tuple, excluded.T.tolist())))
    assert found.rows.tolist() == rows
    assert found.scores.tolist() == scores
    assert found.excluded_scores.equal((queries[excluded[0]] * corpus[excluded[1]]).sum(1))


def test_float16_tiles_are_multiplied_in_float32() -> None:
    generator = torch.Generator().manual_seed(0)
    queries, corpus = (torch.nn.functional.normalize(torch.randn(n, 32, generator=generator)) for n in (5, 200))
    corpus = corpus.half()
    rows, scores = slow_nearest(queries, corpus, 20, set())
    found = nearest(queries, tiles(corpus, 33), depth=20)
    assert found.rows.tolist() == rows
    torch.testing.assert_close(found.scores, torch.tensor(scores), atol=1e-6, rtol=0)


def test_excluded_scores_come_in_the_order_of_the_pairs() -> None:
    pairs = (torch.tensor([1, 0, 1]), torch.tensor([2, 1, 0]))
    found = nearest(torch.eye(2), [torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[5.0, 6.0]])], depth=3,
                    excluded=pairs)  # fmt: skip
    assert found.excluded_scores.tolist() == [6.0, 3.0, 2.0]
    assert found.rows.tolist() == [[2, 0, -1], [1, -1, -1]]


def test_an_empty_corpus_gives_nothing() -> None:
    assert nearest(torch.eye(2), [], depth=2).rows.tolist() == [[-1, -1], [-1, -1]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"depth": 0}, "Got depth 0; need at least 1"),
        ({"queries": torch.tensor([[math.nan, 0.0]])}, "Got queries that are not finite"),
        ({"tiles": [torch.eye(2), torch.tensor([[0.0, math.inf]])]}, "documents from row 2 on that are not finite"),
        ({"tiles": [torch.eye(3)]}, r"Got documents \(3, 3\) for queries \(2, 2\); need"),
        ({"excluded": (torch.tensor([2]), torch.tensor([0]))}, "excluded query rows 2 to 2; need 0 to 1"),
        ({"excluded": (torch.tensor([0]), torch.tensor([2]))}, "excluded document rows 2 to 2; need 0 to 1"),
        ({"excluded": (torch.tensor([0]), torch.tensor([0, 1]))}, r"query rows \(1,\) and document rows \(2,\)"),
    ],
)
def test_wrong_arguments_are_refused(arguments: dict[str, object], message: str) -> None:
    defaults: dict[str, object] = {"queries": torch.eye(2), "tiles": [torch.eye(2)], "depth": 1}
    with pytest.raises(ValueError, match=message):
        nearest(**{**defaults, **arguments})  # type: ignore[arg-type]
