import pytest
import torch

from lightning_jv5.losses import BinaryConsistency, EmbeddingBatch, binary_consistency
from tests.losses.comparing import assert_same, doubled, rows
from tests.references import slow_binary_consistency


@pytest.mark.parametrize("sharpness", [0.5, 1.0, 4.0])
@pytest.mark.parametrize(("queries", "documents"), [(1, 1), (4, 3), (9, 9)])
def test_binary_consistency_matches_slow_reference(sharpness: float, queries: int, documents: int) -> None:
    query, document = rows(queries, 5, seed=0), rows(documents, 5, seed=1)
    loss = binary_consistency(query, document, sharpness=sharpness)
    copies = doubled(query, document)
    assert_same(loss, [query, document], slow_binary_consistency(*copies, sharpness), copies)


def test_embeddings_that_are_codes_already_lose_nothing() -> None:
    signs = rows(6, 8).detach().sign()
    assert binary_consistency(3 * signs, signs.flip(0)).item() == pytest.approx(0, abs=1e-12)


def test_training_on_it_brings_codes_and_floats_together() -> None:
    query, document = rows(32, 16, seed=0), rows(32, 16, seed=1)
    before = binary_consistency(query, document).item()
    optimizer = torch.optim.Adam([query, document], lr=0.02)
    for _ in range(100):
        optimizer.zero_grad()
        binary_consistency(query, document).backward()
        optimizer.step()
    assert binary_consistency(query, document).item() < 0.05 * before


def test_hard_cases_stay_finite() -> None:
    for z in (torch.zeros(3, 4, requires_grad=True), rows(1, 1)):
        loss = binary_consistency(z, z)
        assert loss.isfinite()
        assert torch.autograd.grad(loss, z)[0].isfinite().all()


def test_the_module_compares_queries_with_documents() -> None:
    query, document = rows(4, seed=0), rows(4, seed=1)
    expected = binary_consistency(query, document, sharpness=2.0)
    assert torch.equal(BinaryConsistency(2.0)(EmbeddingBatch(query, document)), expected)


def test_what_is_wrong_is_said() -> None:
    z = torch.eye(3)
    with pytest.raises(ValueError, match="Got sharpness 0; need a positive number"):
        binary_consistency(z, z, sharpness=0)
    with pytest.raises(ValueError, match="Got sharpness -1; need a positive number"):
        BinaryConsistency(-1)
    with pytest.raises(ValueError, match="query 3, document 2; need one"):
        binary_consistency(z, z[:, :2])
    with pytest.raises(ValueError, match="a batch of 'nq' without document embeddings"):
        BinaryConsistency()(EmbeddingBatch(z, dataset="nq"))
