"""Spread-out regularisation (GOR): texts that have nothing to do with each other should be orthogonal."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lightning_jv5.losses.batch import EmbeddingBatch, checked_roles
from lightning_jv5.losses.loss import Loss
from lightning_jv5.losses.unit import at_least_float32, check_rows, inverse_lengths, unit_rows

_ROWS_AT_ONCE = 4096  # so that what is needed besides the gradient itself is a few megabytes


def spread_out(embeddings: Tensor) -> Tensor:
    """Mean squared cosine between different rows: one role's half of arXiv:2602.15547 eq. 3.

    ``1 / (B (B - 1)) * sum_{i != j} (z_i . z_j)^2``. The sum over all pairs is the squared Frobenius norm of the
    ``dim x dim`` Gram matrix, so no ``B x B`` matrix is needed; it is used where it is the smaller one.

    Args:
        embeddings: Any length; shape ``(batch, dim)``.

    Returns:
        A scalar in [0, 1]; 0 for a single row.

    Raises:
        ValueError: If the shape is another or, on the CPU, a number is not finite.

    >>> spread_out(torch.tensor([[1.0, 0.0], [3.0, 4.0]]))  # a single pair, with cosine 0.6
    tensor(0.3600)
    """
    dim = check_rows(batch=embeddings)
    rows = len(embeddings)
    with torch.autocast(embeddings.device.type, enabled=False):
        if rows <= dim:
            unit = unit_rows(embeddings)
            cosines = unit @ unit.T
            squares: Tensor = (cosines - torch.diag(cosines.diagonal())).square().sum()
        else:
            squares = _SquaredCosines.apply(at_least_float32(embeddings))  # type: ignore[no-untyped-call]
        return squares / max(1, rows * (rows - 1))


class _SquaredCosines(torch.autograd.Function):
    """Sum of the squared cosines between different rows, which keeps nothing for its gradient but the Gram matrix."""

    @staticmethod
    def forward(ctx: Any, embeddings: Tensor) -> Tensor:
        gram = embeddings.new_zeros(embeddings.shape[1], embeddings.shape[1])
        for unit in map(unit_rows, torch.split(embeddings, _ROWS_AT_ONCE)):
            gram.addmm_(unit.T, unit)
        ctx.save_for_backward(embeddings, gram)
        return gram.square().sum() - embeddings.any(1).sum()  # less each row with itself: 1, or 0 for a row of zeros

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> Tensor:
        embeddings, gram = ctx.saved_tensors
        gram = gram * (4 * upstream)
        gradient = torch.empty_like(embeddings)
        for part, some in zip(
            torch.split(gradient, _ROWS_AT_ONCE), torch.split(embeddings, _ROWS_AT_ONCE), strict=True
        ):
            scale = inverse_lengths(some).unsqueeze(1)
            unit = some * scale
            torch.mm(unit, gram, out=part)
            along = (part * unit).sum(1, keepdim=True)  # what the length takes out
            part.addcmul_(unit, along, value=-1).mul_(scale)
        return gradient


class SpreadOut(Loss):
    """:func:`spread_out` summed over roles: arXiv:2602.15547 eq. 3.

    Over the texts of all ranks where the batch has been gathered.

    Args:
        roles: Which embeddings are spread, of ``"query"``, ``"document"`` and ``"negatives"``; each among themselves.

    Raises:
        ValueError: If a role is unknown or named twice, or there is none; in a step, if the batch lacks one.

    >>> z = torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    >>> SpreadOut()(EmbeddingBatch(z, z))
    tensor(0.7200)
    """

    def __init__(self, roles: Sequence[str] = ("query", "document")) -> None:
        super().__init__()
        self.roles = checked_roles(roles)

    def forward(self, batch: EmbeddingBatch) -> Tensor:
        """Return the sum over the roles."""
        everywhere = batch.everywhere
        return torch.stack([spread_out(everywhere.student(role)) for role in self.roles]).sum()
