"""Spread-out regularisation (GOR): texts that have nothing to do with each other should be orthogonal."""

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_jv5.losses.batch import EmbeddingBatch, checked_roles
from lightning_jv5.losses.loss import Loss
from lightning_jv5.losses.unit import check_rows, unit_rows


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
    with torch.autocast(embeddings.device.type, enabled=False):
        unit = unit_rows(embeddings)
        rows = len(unit)
        if rows <= dim:
            cosines = unit @ unit.T
            squares = (cosines - torch.diag(cosines.diagonal())).square().sum()
        else:
            squares = (unit.T @ unit).square().sum() - unit.square().sum(1).square().sum()
        return squares / max(1, rows * (rows - 1))


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
