"""Relational distillation: distances between texts, relative to their mean, should be those of a reference model."""

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_jv5.losses.batch import EmbeddingBatch, checked_roles
from lightning_jv5.losses.loss import Loss
from lightning_jv5.losses.unit import check_rows, unit_rows


def relational_distillation(student: Tensor, reference: Tensor) -> Tensor:
    """Mean squared difference of relative distances: arXiv:2602.15547 eq. 8.

    ``(1/M^2) sum_ij ( (1 - cos(s_i, s_j)) / mu_S - (1 - cos(t_i, t_j)) / mu_T )^2``, where ``mu`` is the mean of the
    whole distance matrix, and has a gradient. Expanded, it needs the Gram matrices of both models, the one between
    them, and sums of vectors: ``O(M dim)`` memory, and no ``M x M`` matrix. The terms nearly cancel where the models
    agree, so they are summed in float64.

    Args:
        student: Embeddings of any length; shape ``(texts, dim)``.
        reference: Embeddings of the same texts by the teacher, or by the same model without its adapter; shape
            ``(texts, reference_dim)``. They get no gradient.

    Returns:
        A scalar, 0 or more. Where all texts have one embedding, the relative distances of that model count as zero.

    Raises:
        ValueError: If the numbers of rows differ or, on the CPU, a number is not finite.

    >>> z = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
    >>> relational_distillation(z, 2 * z).item() < 1e-12  # the same model
    True
    """
    check_rows(student=student)
    check_rows(reference=reference)
    if len(student) != len(reference):
        raise ValueError(
            f"Got {len(student)} student and {len(reference)} reference rows; need the same texts in both."
        )
    texts = len(student)
    with torch.autocast(student.device.type, enabled=False):
        s, t = unit_rows(student.double()), unit_rows(reference.detach().double())
        s_sum, t_sum = s.sum(0), t.sum(0)
        s_mean, t_mean = texts**2 - s_sum @ s_sum, texts**2 - t_sum @ t_sum  # sums of the distance matrices
        s_square = texts**2 - 2 * (s_sum @ s_sum) + (s.T @ s).square().sum()
        t_square = texts**2 - 2 * (t_sum @ t_sum) + (t.T @ t).square().sum()
        product = texts**2 - s_sum @ s_sum - t_sum @ t_sum + (s.T @ t).square().sum()
        s_scale, t_scale = _inverse(s_mean, texts), _inverse(t_mean, texts)
        # mu is the sum over M^2; what is left of 1/M^2 and both 1/mu^2 is a factor of M^2
        loss = texts**2 * (s_square * s_scale**2 - 2 * product * s_scale * t_scale + t_square * t_scale**2)
        return loss.clamp(min=0).to(torch.promote_types(student.dtype, torch.float32))


def _inverse(total: Tensor, texts: int) -> Tensor:
    """One over a sum of distances, or zero where it is nothing but rounding."""
    is_zero = total <= 1e-12 * texts**2
    return torch.where(is_zero, 0.0, 1 / torch.where(is_zero, 1.0, total))


class RelationalDistillation(Loss):
    """:func:`relational_distillation` over all texts of the batch together, against the batch's teacher embeddings.

    Those are the teacher's, or, where an adapter is trained, those of the same model with the adapter off: whoever
    makes the batch decides. Over the texts of all ranks where the batch has been gathered.

    Args:
        roles: Whose distances count; those that a batch does not have are passed over, but for the query.

    Raises:
        ValueError: If a role is unknown or named twice, or there is none; in a step, if teacher embeddings are missing.

    >>> z = torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    >>> RelationalDistillation()(EmbeddingBatch(z, z.flip(0), query_teacher=z, document_teacher=z.flip(0))).item()
    0.0
    """

    def __init__(self, roles: Sequence[str] = ("query", "document", "negatives")) -> None:
        super().__init__()
        self.roles = checked_roles(roles)

    def forward(self, batch: EmbeddingBatch) -> Tensor:
        """Return the loss of all texts of the roles."""
        everywhere = batch.everywhere
        roles = [role for role in self.roles if getattr(everywhere, role) is not None]
        if not roles:
            raise ValueError(f"Got a batch of {batch.dataset!r} with none of {list(self.roles)}; name others in roles.")
        student = torch.cat([everywhere.student(role) for role in roles])
        return relational_distillation(student, torch.cat([everywhere.teacher(role) for role in roles]))
