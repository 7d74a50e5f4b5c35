"""What can be said without several processes; the rest is in tests/test_collective.py."""

import torch
from torch import nn

from lightning_jv5.models.sharding import (
    as_many_as_any_rank,
    average_gradients,
    clip_gradient_norm,
    clip_gradient_values,
    gradient_norm,
)


def weights_with_gradients() -> list[nn.Parameter]:
    weights = [nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(2, 1)), nn.Parameter(torch.zeros(1))]
    weights[0].grad, weights[1].grad = torch.tensor([3.0, 0.0]), torch.tensor([[0.0], [-4.0]])
    return weights


def test_without_sharded_weights_gradients_are_those_that_torch_makes() -> None:
    assert gradient_norm(weights_with_gradients()).item() == 5.0
    weights = weights_with_gradients()
    average_gradients(weights)
    assert weights[2].grad is None
    clip_gradient_norm(weights, 1.0)
    torch.testing.assert_close(weights[1].grad, torch.tensor([[0.0], [-0.8]]))
    weights = weights_with_gradients()
    clip_gradient_values(weights, 0.5)
    assert [gradient.tolist() for weight in weights if (gradient := weight.grad) is not None] == [
        [0.5, 0.0],
        [[0.0], [-0.5]],
    ]


def test_a_norm_without_gradients_is_zero() -> None:
    assert gradient_norm([nn.Parameter(torch.zeros(1))]).item() == 0.0


def test_alone_no_chunk_is_added() -> None:
    chunks = [torch.tensor([1, 0])]
    assert as_many_as_any_rank(chunks, torch.device("cpu")) == chunks
