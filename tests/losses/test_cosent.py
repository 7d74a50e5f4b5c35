import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_jv5.losses import CoSENT, EmbeddingBatch, LinearRamp, cosent
from tests.losses.comparing import assert_same, doubled, rows
from tests.references import slow_cosent


@settings(max_examples=40, deadline=None)
@given(
    score=st.lists(st.sampled_from([-1.0, 0.0, 0.5, 1.0, 5.0]), min_size=1, max_size=7),
    temperature=st.sampled_from([0.05, 0.3, 2.0]),
    seed=st.integers(0, 5),
)
def test_cosent_matches_slow_reference(score: list[float], temperature: float, seed: int) -> None:
    query, document = (rows(len(score), 4, seed + n, torch.float64) for n in range(2))
    loss = cosent(query, document, torch.tensor(score), temperature=temperature)
    copies = doubled(query, document)
    expected = slow_cosent(*copies, torch.tensor(score), temperature)
    torch.testing.assert_close(loss, expected, atol=1e-10, rtol=1e-10)
    if expected.requires_grad:
        assert_same(loss, [query, document], expected, copies, tolerance=1e-8)


def test_float32_agrees_too_and_the_temperature_learns() -> None:
    query, document, temperature = rows(20, seed=0), rows(20, seed=1), torch.tensor(0.05, requires_grad=True)
    score = torch.randint(0, 5, (20,), generator=torch.Generator().manual_seed(0))
    copies = doubled(query, document, temperature)
    loss = cosent(query, document, score, temperature=temperature)
    assert_same(loss, [query, document, temperature], slow_cosent(*copies[:2], score, copies[2]), copies)


def test_gradient_agrees_with_finite_differences() -> None:
    score = torch.tensor([0.0, 1.0, 1.0, 3.0])
    inputs = tuple(rows(4, 3, seed, torch.float64) for seed in range(2))
    assert torch.autograd.gradcheck(lambda q, d: cosent(q, d, score, temperature=0.2), inputs)


@pytest.mark.parametrize("count", [1, 5])
def test_equal_scores_ask_for_nothing(count: int) -> None:
    query, document = rows(count, seed=0), rows(count, seed=1)
    loss = cosent(query, document, torch.full((count,), 0.7), temperature=0.05)
    assert loss.item() == 0
    assert not torch.autograd.grad(loss, query)[0].any()


def test_no_exponential_overflows() -> None:
    z = torch.eye(2).requires_grad_()
    loss = cosent(z, torch.tensor([[1.0, 0.0], [0.0, -1.0]]), torch.tensor([0.0, 1.0]), temperature=1e-3)
    assert loss.item() == pytest.approx(2000.0)
    assert torch.autograd.grad(loss, z)[0].isfinite().all()


def test_only_the_order_of_scores_counts() -> None:
    query, document, score = rows(8, seed=0), rows(8, seed=1), torch.arange(8.0)
    loss = cosent(query, document, score, temperature=0.05)
    torch.testing.assert_close(cosent(query, document, score.exp() - 100, temperature=0.05), loss)
    order = torch.randperm(8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(cosent(query[order], document[order], score[order], temperature=0.05), loss)


def test_a_large_batch_takes_no_square_of_its_size() -> None:
    query, document = rows(200_000, 2, seed=0), rows(200_000, 2, seed=1)  # all pairs of pairs would be 160 GB
    loss = cosent(query, document, torch.linspace(0, 1, 200_000), temperature=0.05)
    assert loss.isfinite()


def test_what_is_wrong_is_said() -> None:
    z, score = torch.eye(3), torch.tensor([0.0, float("nan"), 1.0])
    with pytest.raises(ValueError, match="1 scores that are not finite, the first in row 1"):
        cosent(z, z, score, temperature=0.05)
    with pytest.raises(ValueError, match=r"score \(2,\); need"):
        cosent(z, z, torch.ones(2), temperature=0.05)
    with pytest.raises(ValueError, match=r"document \(2, 3\)"):
        cosent(z, z[:2], torch.ones(3), temperature=0.05)
    with pytest.raises(ValueError, match="Got temperature -1; need a positive number"):
        CoSENT(-1)
    with pytest.raises(ValueError, match="a batch of 'nq' without scores to order pairs by"):
        CoSENT()(EmbeddingBatch(z, z, dataset="nq"))
    with pytest.raises(ValueError, match="without documents to order pairs by"):
        CoSENT()(EmbeddingBatch(z, score=torch.ones(3)))


def test_the_module_follows_its_temperature() -> None:
    query, document, score = rows(5, seed=0), rows(5, seed=1), torch.arange(5.0)
    loss = CoSENT(LinearRamp(0.1, 0.05, steps=2))
    batch = EmbeddingBatch(query, document, score=score, step=2)
    assert torch.equal(loss(batch), cosent(query, document, score, temperature=0.05))
    assert loss.watched(1) == {"temperature": pytest.approx(0.075)}
