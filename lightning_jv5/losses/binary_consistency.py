"""Binary consistency: similarities of sign codes should be those of the floats they are cut from."""

from typing import Any

import torch
from torch import Tensor

from lightning_jv5.losses.batch import EmbeddingBatch
from lightning_jv5.losses.loss import Loss
from lightning_jv5.losses.unit import check_rows, unit_rows


def binary_consistency(query: Tensor, document: Tensor, *, sharpness: float = 0.25) -> Tensor:
    """Mean squared difference between the similarities of codes and of floats, over all pairs of the batch.

    ``(1/B^2) sum_ij ( b(q_i) . b(d_j) / dim - cos(q_i, d_j) )^2`` with codes ``b(z) = sign(z)``, where zero counts as
    positive. The sign has the gradient of ``tanh(sharpness * sqrt(dim) * z / |z|)``: straight through, where a
    coordinate is near zero and may change sides, and vanishing far from it. Floats have a gradient, too. Expanded into
    products of ``dim x dim`` matrices: ``O(B dim)`` memory, summed in float64.

    Args:
        query: Embeddings of any length; shape ``(batch, dim)``.
        document: Any number of them; shape ``(documents, dim)``.
        sharpness: How narrow the gradient's window around zero is: one over its width in typical coordinates. At 0.25
            training brings codes and floats together in a few hundred steps; at 1 it makes no headway.

    Returns:
        A scalar, 0 or more.

    Raises:
        ValueError: If ``sharpness`` is not positive, dims differ or, on the CPU, a number is not finite.

    >>> z = torch.tensor([[3.0, 4.0]])  # of length 5; its code is that of [1, 1]
    >>> round(binary_consistency(z, torch.tensor([[0.0, 1.0]])).item(), 4)  # codes agree, floats to 0.8
    0.04
    """
    dim = check_rows(query=query, document=document)
    if not sharpness > 0:
        raise ValueError(f"Got sharpness {sharpness}; need a positive number, such as 0.25.")
    with torch.autocast(query.device.type, enabled=False):
        q, d = unit_rows(query.double()), unit_rows(document.double())
        q_code, d_code = (_sign(z, sharpness * dim**0.5) / dim**0.5 for z in (q, d))
        codes = ((q_code.T @ q_code) * (d_code.T @ d_code)).sum()
        floats = ((q.T @ q) * (d.T @ d)).sum()
        both = ((q_code.T @ q) * (d_code.T @ d)).sum()
        mean: Tensor = (codes - 2 * both + floats).clamp(min=0) / max(1, len(q) * len(d))
        return mean.to(torch.promote_types(query.dtype, torch.float32))


def _sign(z: Tensor, slope: float) -> Tensor:
    signs: Tensor = _Sign.apply(z, slope)  # type: ignore[no-untyped-call]
    return signs


class _Sign(torch.autograd.Function):
    """+1 and -1, zero counting as positive, with the gradient of ``tanh(slope * z)``."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, slope: float) -> Tensor:
        ctx.save_for_backward(z)
        ctx.slope = slope
        return torch.where(z >= 0, 1.0, -1.0).to(z.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        (z,) = ctx.saved_tensors
        return gradient * ctx.slope * (1 - torch.tanh(ctx.slope * z) ** 2), None


class BinaryConsistency(Loss):
    """:func:`binary_consistency` between queries and documents: training for Hamming search.

    An alternative, or an addition, to :class:`~lightning_jv5.losses.SpreadOut`, which makes codes better by spreading
    the floats. Over the texts of all ranks where the batch has been gathered.

    Args:
        sharpness: How narrow the gradient's window around zero is: one over its width in typical coordinates.

    Raises:
        ValueError: If ``sharpness`` is not positive; in a step, if the batch lacks documents.

    >>> BinaryConsistency()(EmbeddingBatch(torch.ones(2, 4), torch.ones(2, 4)))
    tensor(0.)
    """

    def __init__(self, sharpness: float = 0.25) -> None:
        super().__init__()
        if not sharpness > 0:
            raise ValueError(f"Got sharpness {sharpness}; need a positive number, such as 0.25.")
        self.sharpness = sharpness

    def forward(self, batch: EmbeddingBatch) -> Tensor:
        """Return the loss of all pairs of a query and a document."""
        everywhere = batch.everywhere
        return binary_consistency(everywhere.student("query"), everywhere.student("document"), sharpness=self.sharpness)
