import pytest
import torch

from lightning_jv5.models.projection import Projection
from lightning_jv5.rebuildable import describe, rebuild


def slow_projection(z: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Equation 1 as printed, in float64: the first columns of W, the whole b."""
    rows = [
        [
            bias[i].double() + sum(weight[i, j].double() * row[j].double() for j in range(len(row)))
            for i in range(len(bias))
        ]
        for row in z
    ]
    return torch.tensor(rows, dtype=torch.float64)


@pytest.mark.parametrize("width", [1, 3, 6])
def test_projection_matches_slow_reference_at_every_width(width: int) -> None:
    torch.manual_seed(0)
    projection = Projection(6, 4)
    torch.nn.init.normal_(projection.bias)
    z = torch.randn(5, width)
    expected = slow_projection(z, projection.weight.detach(), projection.bias.detach())
    torch.testing.assert_close(projection(z).double(), expected, atol=1e-6, rtol=1e-6)


def test_projection_starts_as_identity_or_orthonormal() -> None:
    assert torch.equal(Projection(3, 3).weight, torch.eye(3))
    wide, tall = Projection(6, 4).weight, Projection(4, 6).weight
    torch.testing.assert_close(wide @ wide.T, torch.eye(4))
    torch.testing.assert_close(tall.T @ tall, torch.eye(4))
    assert not Projection(4, 6).bias.any()


def test_only_a_trainable_projection_has_gradients() -> None:
    assert all(weights.requires_grad for weights in Projection(3, 2).parameters())
    assert not any(weights.requires_grad for weights in Projection(3, 2, trainable=False).parameters())


def test_projection_is_rebuilt_from_plain_data() -> None:
    again = rebuild(describe(Projection(6, 4, trainable=False)))
    assert (again.input_dim, again.output_dim, again.weight.requires_grad) == (6, 4, False)


def test_wrong_dimensions_are_named() -> None:
    with pytest.raises(ValueError, match="dimension 7; this projection takes at most 6"):
        Projection(6, 4)(torch.zeros(1, 7))
    with pytest.raises(ValueError, match="input_dim 0, output_dim 4; both must be at least 1"):
        Projection(0, 4)
