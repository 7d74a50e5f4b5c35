from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from lightning_jv5.models.model_folder import PROJECTION
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
    with pytest.raises(ValueError, match=r"dimension 7; this projection takes at most 6"):
        Projection(6, 4)(torch.zeros(1, 7))
    with pytest.raises(ValueError, match=r"input_dim 0, output_dim 4; both must be at least 1"):
        Projection(0, 4)
    for dims in ({}, {"input_dim": 3}, {"output_dim": 3}):
        with pytest.raises(ValueError, match=r"both must be at least 1. Only with path may they be left out"):
            Projection(**dims)


# From an earlier stage


@pytest.fixture
def folder(tmp_path: Path) -> str:
    torch.manual_seed(3)
    tensors = {"weight": torch.randn(4, 6).bfloat16(), "bias": torch.randn(4).bfloat16()}
    save_file(tensors, tmp_path / PROJECTION)
    return str(tmp_path)


def test_a_projection_goes_on_where_an_earlier_stage_left_it(folder: str) -> None:
    torch.manual_seed(3)
    weight, bias = torch.randn(4, 6).bfloat16().float(), torch.randn(4).bfloat16().float()
    for projection in (Projection(path=folder), Projection(6, 4, path=folder), Projection(6, path=folder)):
        assert (projection.input_dim, projection.output_dim) == (6, 4)
        assert torch.equal(projection.weight, weight)
        assert torch.equal(projection.bias, bias)
        assert projection.weight.dtype == torch.float32
        assert projection.weight.requires_grad
        assert projection.bias.requires_grad
    assert not any(weights.requires_grad for weights in Projection(path=folder, trainable=False).parameters())
    z = torch.randn(5, 3)
    torch.testing.assert_close(Projection(path=folder)(z).double(), slow_projection(z, weight, bias))


def test_a_projection_from_a_folder_is_rebuilt_from_plain_data(folder: str) -> None:
    again = rebuild(describe(Projection(path=folder, trainable=False)))
    assert torch.equal(again.weight, Projection(path=folder).weight)
    assert not again.weight.requires_grad


def test_a_folder_with_another_projection_or_none_is_named(folder: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"Got output_dim 5 and the projection of .*, which has 4; leave output"):
        Projection(6, 5, path=folder)
    with pytest.raises(ValueError, match=r"Got input_dim 4 and the projection of .*, which has 6"):
        Projection(4, path=folder)
    (tmp_path / "empty").mkdir()
    for missing in ("empty", "nowhere"):
        with pytest.raises(ValueError, match=rf"{missing}' for a projection, where .* no projection\.safetensors"):
            Projection(6, 4, path=str(tmp_path / missing))
