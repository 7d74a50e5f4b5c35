import sys

import pytest
import torch

from lightning_jv5.losses import EmbeddingBatch, SpreadOut, spread_out
from tests.losses.comparing import assert_same, doubled, rows
from tests.references import slow_spread_out


@pytest.mark.parametrize(("count", "dim"), [(2, 6), (5, 5), (6, 5), (9, 3)])  # both sides of the border
def test_spread_out_matches_slow_reference(count: int, dim: int) -> None:
    embeddings = rows(count, dim)
    copies = doubled(embeddings)
    assert_same(spread_out(embeddings), [embeddings], slow_spread_out(*copies), copies)


@pytest.mark.parametrize("count", [3, 6])
def test_gradient_agrees_with_finite_differences(count: int) -> None:
    assert torch.autograd.gradcheck(spread_out, (rows(count, 4, dtype=torch.float64),))


def test_both_ways_agree_where_many_rows_meet() -> None:
    embeddings = rows(400, 16).detach()
    unit = torch.nn.functional.normalize(embeddings.double(), dim=-1)
    cosines = unit @ unit.T
    expected = (cosines.square().sum() - cosines.diagonal().square().sum()) / (400 * 399)
    torch.testing.assert_close(spread_out(embeddings).double(), expected, atol=0, rtol=1e-6)


def test_parts_of_the_rows_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    module = sys.modules["lightning_jv5.losses.spread_out"]  # the package has a function of that name
    monkeypatch.setattr(module, "_ROWS_AT_ONCE", 4)
    embeddings = rows(9, 3)
    copies = doubled(embeddings)
    assert_same(spread_out(embeddings), [embeddings], slow_spread_out(*copies), copies)


def test_hard_cases_stay_finite() -> None:
    for embeddings in (rows(1), torch.zeros(3, 4, requires_grad=True), torch.ones(9, 4, requires_grad=True)):
        value = spread_out(embeddings)
        assert value.isfinite()
        assert torch.autograd.grad(value, embeddings)[0].isfinite().all()
    assert spread_out(torch.ones(9, 4)).item() == pytest.approx(1.0)
    assert spread_out(torch.ones(1, 4)).item() == 0


def test_autocast_and_half_precision_are_computed_in_float32() -> None:
    embeddings = rows(40, 8)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(spread_out(embeddings), spread_out(embeddings))
    halves = embeddings.detach().bfloat16()
    assert spread_out(halves).dtype == torch.float32
    torch.testing.assert_close(spread_out(halves).double(), slow_spread_out(halves.double()), atol=1e-6, rtol=1e-5)


def test_the_module_sums_over_its_roles() -> None:
    query, document, negatives = rows(4, seed=0), rows(4, seed=1), rows(3, seed=2)
    batch = EmbeddingBatch(query, document, negatives)
    torch.testing.assert_close(SpreadOut()(batch), spread_out(query) + spread_out(document))
    torch.testing.assert_close(SpreadOut(["negatives"])(batch), spread_out(negatives))


def test_what_is_wrong_is_said() -> None:
    with pytest.raises(ValueError, match=r"Got batch embeddings \(3,\)"):
        spread_out(torch.ones(3))
    with pytest.raises(ValueError, match=r"Got roles \['text'\]; name one or more of"):
        SpreadOut(["text"])
    with pytest.raises(ValueError, match="a batch of 'nq' without document embeddings, which a loss asks for"):
        SpreadOut()(EmbeddingBatch(torch.eye(2), dataset="nq"))
