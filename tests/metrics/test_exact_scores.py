from fractions import Fraction

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_jv5.metrics import exact_scores as module
from lightning_jv5.metrics.exact_scores import exact_products, exact_scores, on_grid, slack


def unit_rows(rows: int, dim: int, seed: int) -> Tensor:
    return F.normalize(torch.randn(rows, dim, generator=torch.Generator().manual_seed(seed)), dim=1)


def test_rounding_is_to_the_nearest_multiple_and_exact_the_second_time() -> None:
    vectors = torch.cat([unit_rows(20, 30, seed=0), torch.eye(30), -torch.eye(30), torch.zeros(1, 30)])
    rounded = on_grid(vectors)
    assert rounded.tolist() == [[round(value * 2**24) / 2**24 for value in row] for row in vectors.tolist()]
    assert (rounded - vectors).abs().max() <= 2**-25
    assert on_grid(rounded).equal(rounded)


@pytest.mark.parametrize("near", [1, 50, 10**6])
@pytest.mark.parametrize("sparse", [0, 10**9])  # always gathered; always the whole product
@pytest.mark.parametrize("dim", [3, 384])
def test_scores_are_those_of_fractions(dim: int, sparse: int, near: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SPARSE", sparse)
    monkeypatch.setattr(module, "_NEAR", near)
    queries, documents = (on_grid(unit_rows(rows, dim, seed)) for rows, seed in ((2, 1), (9, 2)))
    documents[4] = queries[1]
    query, column = torch.tensor([0, 1, 1, 0]), torch.tensor([8, 4, 0, 4])
    expected = [
        float(sum(Fraction(a) * Fraction(b) for a, b in zip(queries[q].tolist(), documents[d].tolist(), strict=True)))
        for q, d in zip(query.tolist(), column.tolist(), strict=True)
    ]
    found = exact_scores(queries, documents, query, column)
    assert found.equal(torch.tensor(expected, dtype=torch.float64).float())
    assert exact_products(queries, documents)[query, column].equal(found)


def test_no_order_of_the_coordinates_makes_a_difference() -> None:
    queries, documents = on_grid(unit_rows(6, 1024, seed=3)), on_grid(unit_rows(50, 1024, seed=4))
    products = queries.double() @ documents.double().T
    for seed in range(5):
        order = torch.randperm(1024, generator=torch.Generator().manual_seed(seed))
        assert (queries[:, order].double() @ documents[:, order].double().T).equal(products)


@pytest.mark.parametrize("dim", [3, 384, 4096])
def test_products_in_float32_are_within_the_slack(dim: int) -> None:
    queries, documents = on_grid(unit_rows(20, dim, seed=5)), on_grid(unit_rows(200, dim, seed=6))
    documents[:20] = queries
    assert (queries @ documents.T - exact_products(queries, documents)).abs().max() < slack(dim)


def test_no_pairs_have_no_scores() -> None:
    none = torch.zeros(0, dtype=torch.int64)
    assert exact_scores(torch.eye(2), torch.eye(2), none, none).shape == (0,)
