from typing import Any, get_args

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_jv5.metrics.views import Precision, View
from lightning_jv5.search.view_index import RESCORED, ViewIndex

DIM, DOCUMENTS = 32, 60


def unit(count: int, seed: int) -> Tensor:
    return F.normalize(torch.randn(count, DIM, generator=torch.Generator().manual_seed(seed)), dim=-1)


def slow_scores(query: Tensor, documents: Tensor, dim: int, precision: str) -> list[float]:
    """The cosine of what is compared, document by document, in float64."""

    def represented(vector: list[float], searches: bool) -> list[float]:
        if precision == "float" or (precision == "asymmetric" and searches):
            return vector
        if precision == "int8":
            largest = max(abs(number) for number in vector)
            return [float(round(127 * number / largest)) for number in vector]
        return [1.0 if number >= 0 else -1.0 for number in vector]

    def cosine(one: list[float], other: list[float]) -> float:
        norms = [sum(number**2 for number in side) ** 0.5 for side in (one, other)]
        return sum(a * b for a, b in zip(one, other, strict=True)) / (norms[0] * norms[1])

    one = represented(query[0, :dim].double().tolist(), searches=True)
    return [cosine(one, represented(document[:dim].double().tolist(), searches=False)) for document in documents]


def slow_order(query: Tensor, documents: Tensor, dim: int, precision: str, depth: int) -> list[int]:
    if precision != "rescored":
        scores = [round(score, 9) for score in slow_scores(query, documents, dim, precision)]
        return sorted(range(len(scores)), key=lambda row: (-scores[row], row))
    by_bits = slow_order(query, documents, dim, "binary", depth)
    floats = slow_scores(query, documents, dim, "float")
    some = RESCORED * depth
    return sorted(by_bits[:some], key=lambda row: -floats[row]) + by_bits[some:]


@pytest.mark.parametrize("precision", get_args(Precision))
@pytest.mark.parametrize("dim", [DIM, 20])
@pytest.mark.parametrize("depth", [1, 7, 100])
def test_ranking_equals_slow_reference(precision: Any, dim: int, depth: int) -> None:
    documents, queries = unit(DOCUMENTS, seed=0), unit(5, seed=1)
    index = ViewIndex(View(dim=dim, precision=precision), documents)
    for query in queries.split(1):
        found = index.search(query, depth)
        expected = slow_order(query, documents, dim, precision, min(depth, DOCUMENTS))
        assert found.rows == expected[:depth]
        scores = slow_scores(query, documents, dim, "float" if precision == "rescored" else precision)
        assert found.scores == pytest.approx([scores[row] for row in found.rows], abs=1e-5)
        assert found.seconds > 0
        everywhere = index.ranks(query, list(range(DOCUMENTS)), found)
        assert everywhere == [expected.index(row) + 1 for row in range(DOCUMENTS)]


@pytest.mark.parametrize("precision", get_args(Precision))
def test_documents_that_tie_come_in_the_order_of_the_corpus(precision: Any) -> None:
    documents = unit(3, seed=0)[[0, 1, 0, 0, 2]]
    index = ViewIndex(View(precision=precision), documents)
    query = documents[:1]
    found = index.search(query, 2)
    assert found.rows == [0, 2]
    assert index.ranks(query, [0, 2, 3], found) == [1, 2, 3]


def test_bytes_are_those_of_the_view() -> None:
    sizes = [ViewIndex(View(dim, precision), unit(2, seed=0)).bytes_per_vector for dim, precision in VIEWS]
    assert sizes == [128, 32, 4, 2]


VIEWS: list[tuple[int | None, Precision]] = [(None, "float"), (None, "int8"), (None, "binary"), (16, "rescored")]


def test_a_corpus_without_documents_is_refused() -> None:
    with pytest.raises(ValueError, match="Got a corpus without documents; need at least one"):
        ViewIndex(View(), torch.zeros(0, DIM))
