"""A loss beside its slow reference: value and every gradient."""

from collections.abc import Sequence

import torch
from torch import Tensor


def rows(count: int, dim: int = 6, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    """Random embeddings of any length, with a gradient."""
    made = torch.randn(count, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return made.to(dtype).requires_grad_()


def doubled(*tensors: Tensor) -> list[Tensor]:
    """The same numbers in float64, with gradients of their own."""
    return [tensor.detach().double().requires_grad_() for tensor in tensors]


def assert_same(
    loss: Tensor, inputs: Sequence[Tensor], expected: Tensor, expected_inputs: Sequence[Tensor], tolerance: float = 1e-5
) -> None:
    """Compare values, and gradients relative to the largest of each tensor."""
    torch.testing.assert_close(loss.double(), expected, atol=tolerance, rtol=tolerance)
    gradients = torch.autograd.grad(loss, inputs)
    expected_gradients = torch.autograd.grad(expected, expected_inputs)
    for gradient, wanted in zip(gradients, expected_gradients, strict=True):
        assert gradient.shape == wanted.shape
        scale = wanted.abs().max().clamp(min=1e-12)
        torch.testing.assert_close(gradient.double() / scale, wanted / scale, atol=tolerance, rtol=0)
