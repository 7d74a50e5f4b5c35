"""The linear map between the student's and the teacher's space, usable at every Matryoshka dimension."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_jv5.rebuildable import Rebuildable


class Projection(Rebuildable, nn.Module):
    """``W z + b`` from the student's space to the teacher's: eq. 1 of https://arxiv.org/abs/2602.15547.

    An embedding truncated to ``k`` dimensions meets the first ``k`` columns of the same ``W`` and the same ``b``, so
    one projection serves every Matryoshka dimension. ``W`` starts as the identity where it is square, else with
    orthonormal rows or columns; ``b`` starts at zero.

    Args:
        input_dim: Dimension of the whole student embedding.
        output_dim: Dimension of the teacher embedding.
        trainable: Whether ``W`` and ``b`` are trained; ``False`` freezes them where they start.

    Raises:
        ValueError: If a dimension is not positive.

    >>> Projection(3, 3)(torch.tensor([[1.0, 2.0]]))
    tensor([[1., 2., 0.]], grad_fn=<AddmmBackward0>)
    """

    def __init__(self, input_dim: int, output_dim: int, *, trainable: bool = True) -> None:
        super().__init__()
        if input_dim < 1 or output_dim < 1:
            raise ValueError(f"Got input_dim {input_dim}, output_dim {output_dim}; both must be at least 1.")
        self.input_dim = input_dim
        self.output_dim = output_dim
        weight = torch.empty(output_dim, input_dim)
        if input_dim == output_dim:
            nn.init.eye_(weight)
        else:
            nn.init.orthogonal_(weight)
        self.weight = nn.Parameter(weight, requires_grad=trainable)
        self.bias = nn.Parameter(torch.zeros(output_dim), requires_grad=trainable)

    def forward(self, z: Tensor) -> Tensor:
        """Project embeddings, whole or truncated.

        Args:
            z: Embeddings, shape ``(..., k)`` with ``k <= input_dim``.

        Returns:
            Projected embeddings, shape ``(..., output_dim)``; not normalised.

        Raises:
            ValueError: If ``z`` is wider than ``input_dim``.
        """
        width = z.shape[-1]
        if width > self.input_dim:
            raise ValueError(
                f"Got embeddings of dimension {width}; this projection takes at most {self.input_dim}. "
                "Build Projection(input_dim=...) with the student's full dimension."
            )
        return F.linear(z, self.weight[:, :width], self.bias)
