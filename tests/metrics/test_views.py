from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from lightning_jv5.metrics import PRECISIONS, Precision, View
from lightning_jv5.rebuildable import describe, rebuild


def embeddings(rows: int, dim: int, seed: int) -> Tensor:
    return torch.randn(rows, dim, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_truncating_is_followed_by_normalising_in_float32(dtype: torch.dtype) -> None:
    whole = embeddings(5, 16, seed=0).to(dtype)
    cut = View(dim=4).cut(whole)
    assert cut.dtype == torch.float32
    torch.testing.assert_close(cut, whole[:, :4].float() / whole[:, :4].float().norm(dim=1, keepdim=True))
    assert View(dim=4).query(cut).equal(cut)
    assert View(dim=4).document(cut).equal(cut)


@pytest.mark.parametrize("precision", ["binary", "rescored"])
def test_dot_of_binary_views_ranks_as_hamming_distance_does(precision: Precision) -> None:
    query, document = embeddings(3, 64, seed=0), embeddings(20, 64, seed=1)
    view = View(dim=48, precision=precision)
    distance = ((query[:, None, :48] >= 0) != (document[:, :48] >= 0)).sum(2)
    assert (view.query(view.cut(query)) @ view.document(view.cut(document)).T).equal(48.0 - 2 * distance)


def test_an_asymmetric_view_compares_floats_with_sign_bits() -> None:
    query, document = embeddings(3, 10, seed=0), embeddings(20, 10, seed=1)
    view = View(precision="asymmetric")
    expected = torch.tensor(
        [[sum(q if d >= 0 else -q for q, d in zip(one, other, strict=True)) for other in document] for one in query]
    )
    found = view.query(view.cut(query)) @ view.document(view.cut(document)).T
    largest = query.abs().amax(1, keepdim=True)
    torch.testing.assert_close(found * largest / (2**24 // 10), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("dim", [3, 384, 1024])
def test_documents_of_the_same_bits_tie_in_an_asymmetric_view_in_any_batch(dim: int) -> None:
    view = View(precision="asymmetric")
    query = view.query(view.cut(embeddings(40, dim, seed=0)))
    document = view.document(view.cut(embeddings(1, dim, seed=1)))
    alone = query @ document.T
    exact = query.double() @ document.double().T
    for copies in (2, 7, 33):
        assert (query @ document.expand(copies, -1).T == alone).all()
    assert exact.equal(alone.double())


def slow_int8_cosine(one: Sequence[float], other: Sequence[float]) -> float:
    """Round both to whole numbers in which the largest is 127, then their cosine."""
    codes = [[round(127 * value / max(map(abs, vector))) for value in vector] for vector in (one, other)]
    dot = sum(left * right for left, right in zip(*codes, strict=True))
    return float(dot / (sum(c * c for c in codes[0]) * sum(c * c for c in codes[1])) ** 0.5)


def test_int8_codes_compare_as_the_cosine_of_whole_numbers() -> None:
    query, document = embeddings(3, 24, seed=0), 100 * embeddings(4, 24, seed=1)
    view = View(dim=20, precision="int8")
    expected = [[slow_int8_cosine(one[:20].tolist(), other[:20].tolist()) for other in document] for one in query]
    found = view.query(view.cut(query)) @ view.document(view.cut(document)).T
    torch.testing.assert_close(found, torch.tensor(expected), atol=1e-6, rtol=0)
    exact = torch.nn.functional.cosine_similarity(query[:, None, :20], document[:, :20], dim=2)
    assert not torch.allclose(found, exact, atol=1e-6)


def test_zero_counts_as_positive() -> None:
    view = View(precision="binary")
    assert view.document(view.cut(torch.tensor([[0.0, -0.0, -1e-30]]))).tolist() == [[1.0, 1.0, -1.0]]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_no_view_hides_what_is_not_a_number(precision: Precision) -> None:
    view = View(precision=precision)
    cut = view.cut(torch.tensor([[torch.nan, torch.inf, 1.0]]))
    assert view.query(cut).isnan().any()
    assert view.document(cut).isnan().any()


@pytest.mark.parametrize("precision", ["float", "int8"])
def test_an_empty_text_stays_zero(precision: Precision) -> None:
    view = View(dim=2, precision=precision)
    assert view.document(view.cut(torch.zeros(1, 4))).tolist() == [[0.0, 0.0]]


def test_bytes_are_those_of_what_is_stored() -> None:
    assert [View(20, precision).bytes_per_vector(384) for precision in PRECISIONS] == [80, 20, 3, 3, 3]


@pytest.mark.parametrize(
    ("view", "name"),
    [
        (View(), ""),
        (View(dim=64), "dim64"),
        (View(precision="binary"), "binary"),
        (View(64, "rescored"), "dim64_rescored"),
    ],
)
def test_name_is_for_log_keys_and_a_checkpoint_keeps_the_view(view: View, name: str) -> None:
    assert view.name == name
    assert rebuild(describe(view)) == view


def test_impossible_views_are_refused() -> None:
    with pytest.raises(ValueError, match="Got a view of dim 0; need at least 1"):
        View(dim=0)
    with pytest.raises(ValueError, match="Got precision 'int4'; need one of float, int8, binary, asymmetric, rescored"):
        View(precision="int4")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="embeddings of 4 coordinates for a view of 8"):
        View(dim=8).cut(torch.ones(1, 4))
