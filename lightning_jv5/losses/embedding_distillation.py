"""Embedding distillation: the student's embedding, seen through a linear map, should point where the teacher's does."""

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_jv5.losses.batch import EmbeddingBatch, checked_roles
from lightning_jv5.losses.loss import Loss
from lightning_jv5.losses.unit import at_least_float32, check_rows, unit_rows
from lightning_jv5.models.projection import Projection


def embedding_distillation(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean cosine distance between matching rows: arXiv:2602.15547 eq. 1, for one side, averaged over the batch.

    Args:
        student: Student embeddings in teacher space (after the projection), any length; shape ``(batch, dim)``.
        teacher: Teacher embeddings of the same texts, any length; shape ``(batch, dim)``.

    Returns:
        Mean of ``1 - cos`` over the rows, in [0, 2]: a scalar.

    Raises:
        ValueError: If the shapes differ or, on the CPU, a number is not finite.

    >>> import torch
    >>> embedding_distillation(torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([[3.0, 0.0], [1.0, 0.0]]))
    tensor(0.5000)
    """
    if student.ndim != 2 or student.shape != teacher.shape:
        raise ValueError(
            f"Got student embeddings {tuple(student.shape)} and teacher embeddings {tuple(teacher.shape)}; need the "
            "same (batch, dim). Where the teacher has another dimension, give the loss a "
            "Projection(input_dim=<student dim>, output_dim=<teacher dim>)."
        )
    check_rows(student=student)
    check_rows(teacher=teacher)
    with torch.autocast(student.device.type, enabled=False):
        cosines = (unit_rows(student) * unit_rows(teacher)).sum(1)
        return (1 - cosines).sum() / max(1, len(cosines))


class EmbeddingDistillation(Loss):
    """:func:`embedding_distillation` summed over the roles: arXiv:2602.15547 eq. 1.

    The student's projection is psi of eq. 1; the teacher's is the paper's ablation (fig. 4). Under Matryoshka each uses
    the columns, or gives the coordinates, that the truncated student has.

    Args:
        projection: Maps student embeddings into teacher space; none where both spaces are to be the same.
        teacher_projection: Maps teacher embeddings into student space instead.
        roles: Which sides are distilled, of ``"query"``, ``"document"`` and ``"negatives"``.

    Raises:
        ValueError: If a role is unknown or named twice, there is none, or both projections are given.
    """

    def __init__(
        self,
        projection: Projection | None = None,
        *,
        teacher_projection: Projection | None = None,
        roles: Sequence[str] = ("query", "document"),
    ) -> None:
        super().__init__()
        if projection is not None and teacher_projection is not None:
            raise ValueError("Got projection and teacher_projection; map the student or the teacher, not both.")
        self.projection = projection
        self.teacher_projection = teacher_projection
        self.roles = checked_roles(roles)

    def forward(self, batch: EmbeddingBatch) -> Tensor:
        """Return the sum over the roles of the mean cosine distance."""
        return sum(
            (self._one_side(batch, role) for role in self.roles), start=at_least_float32(batch.query.new_zeros(()))
        )

    def _one_side(self, batch: EmbeddingBatch, role: str) -> Tensor:
        student, teacher = batch.student(role), batch.teacher(role)
        with torch.autocast(student.device.type, enabled=False):  # or the projections would round to bfloat16
            student, teacher = at_least_float32(student), at_least_float32(teacher)
            if self.projection is not None:
                student = self.projection(student)
            if self.teacher_projection is not None:
                teacher = self.teacher_projection(teacher)[..., : student.shape[-1]]
            return embedding_distillation(student, teacher) * batch.share(role)
