"""Score distillation: each text should find the texts of its batch as (dis)similar as the teacher does."""

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from lightning_jv5.losses.batch import EmbeddingBatch, checked_roles
from lightning_jv5.losses.loss import Loss, TermValue
from lightning_jv5.losses.row_tiles import sum_over_row_tiles
from lightning_jv5.losses.schedule import Schedule
from lightning_jv5.losses.temperature import LearnableTemperature, check_temperature, temperature_source
from lightning_jv5.losses.unit import check_rows, unit_rows

Divergence = Literal["mse", "kl"]


def score_distillation(
    student: Tensor,
    teacher: Tensor,
    *,
    temperature: float | Tensor = 0.02,
    teacher_temperature: float | Tensor | None = None,
    divergence: Divergence = "mse",
    skip_self: bool = False,
    rows: slice | None = None,
    dims: Sequence[int] | None = None,
    dim_weights: Sequence[float] | None = None,
    tile_rows: int | None = None,
) -> Tensor:
    """Compare softmaxes over similarities within a batch: arXiv:2602.15547 eq. 9 and 10, for one role.

    ``p_ij = softmax_j( cos(z_i, z_j) / temperature )`` for student and teacher; ``(1/B) sum_ij (p^S_ij - p^T_ij)^2``
    or ``(1/B) sum_ij p^T_ij ln( p^T_ij / p^S_ij )``. A tile of rows at a time, as :func:`info_nce`.

    Args:
        student: Embeddings of any length; shape ``(batch, dim)``.
        teacher: Embeddings of the same texts, of any dimension; they get no gradient.
        temperature: Divides the cosines (unitless). A tensor may have a gradient, which is that of the student's
            softmax alone: the teacher's is what is to be reached, and does not move to meet it.
        teacher_temperature: The teacher's; by default the student's value.
        divergence: ``"mse"`` (the paper's eq. 9) or ``"kl"``.
        skip_self: Whether a text's similarity to itself is left out. The paper's sum has it; at small temperatures it
            takes nearly all of the softmax.
        rows: The rows of the batch whose loss is averaged; by default all.
        dims: Matryoshka: summed over student embeddings cut to each of these.
        dim_weights: Weight of each dim; by default 1.
        tile_rows: Rows in a tile of similarities; by default what fits a few megabytes.

    Returns:
        Mean over the rows: a scalar.

    Raises:
        ValueError: If shapes do not fit, the divergence is unknown or, on the CPU, a number is not finite.

    >>> z = torch.eye(2)
    >>> score_distillation(z, z), round(score_distillation(z, torch.ones(2, 2), temperature=1.0).item(), 4)
    (tensor(0.), 0.1068)
    """
    check_rows(student=student)
    check_rows(teacher=teacher)
    for value in (temperature, temperature if teacher_temperature is None else teacher_temperature):
        check_temperature(value)
    if len(student) != len(teacher):
        raise ValueError(f"Got {len(student)} student and {len(teacher)} teacher rows; need the same texts in both.")
    if divergence not in get_args(Divergence):
        raise ValueError(f"Got divergence {divergence!r}; need one of {', '.join(get_args(Divergence))}.")
    rows = slice(0, len(student)) if rows is None else slice(*rows.indices(len(student))[:2])
    tau = torch.as_tensor(temperature, device=student.device, dtype=torch.promote_types(student.dtype, torch.float32))
    of_teacher = tau if teacher_temperature is None else teacher_temperature
    score = _Softmaxes(
        unit_rows(teacher.detach()),
        temperature=tau.detach(),
        teacher_temperature=of_teacher.detach() if isinstance(of_teacher, Tensor) else of_teacher,
        rows=rows,
        divergence=divergence,
        skip_self=skip_self,
    )
    return sum_over_row_tiles(
        student[rows], student, score, temperature=tau, dims=dims, weights=dim_weights, tile_rows=tile_rows
    )


class _Softmaxes:
    """The divergence of a tile's softmaxes, and its gradient in the place of the cosines."""

    def __init__(
        self,
        teacher: Tensor,
        *,
        temperature: Tensor,
        teacher_temperature: float | Tensor,
        rows: slice,
        divergence: Divergence,
        skip_self: bool,
    ) -> None:
        self.teacher, self.rows = teacher, rows
        self.temperature, self.teacher_temperature = temperature, teacher_temperature
        self.divergence, self.skip_self = divergence, skip_self

    def prepare(self, own: slice) -> Tensor:
        """Return the teacher's softmax."""
        rows = slice(own.start + self.rows.start, own.stop + self.rows.start)
        logits = (self.teacher[rows] @ self.teacher.T).div_(self.teacher_temperature)
        return torch.softmax(self._without_self(logits, own), dim=1)

    def __call__(self, cosines: Tensor, own: slice, prepared: Tensor) -> Tensor:
        count, target = self.rows.stop - self.rows.start, prepared
        logits = self._without_self(cosines.div_(self.temperature), own)
        if self.divergence == "kl":
            log_share = torch.log_softmax(logits, dim=1)
            # xlogy: what the teacher gives no share adds nothing; nor does a text to itself, if it is skipped
            loss: Tensor = torch.xlogy(target, target).sub_(target * torch.where(target > 0, log_share, 0.0)).sum()
            loss = loss / count
            cosines.copy_(log_share.exp_().sub_(target).div_(count * self.temperature))
            return loss
        share = torch.softmax(logits, dim=1)
        difference = share - target
        squared: Tensor = difference.square().sum() / count
        inner = torch.einsum("ij,ij->i", difference, share).unsqueeze(1)
        cosines.copy_(share.mul_(difference.sub_(inner)).mul_(2 / (count * self.temperature)))
        return squared

    def _without_self(self, logits: Tensor, own: slice) -> Tensor:
        if self.skip_self and logits.shape[1] > 1:
            row = torch.arange(own.stop - own.start, device=logits.device)
            logits[row, row + own.start + self.rows.start] = -torch.inf
        return logits


class ScoreDistillation(Loss):
    """:func:`score_distillation` summed over roles: arXiv:2602.15547 eq. 9.

    Args:
        temperature: A number, a :class:`~lightning_jv5.losses.Schedule`, or a
            :class:`~lightning_jv5.losses.LearnableTemperature`.
        teacher_temperature: The teacher's; by default the student's value.
        divergence: ``"mse"`` or ``"kl"``.
        skip_self: Whether a text's similarity to itself is left out.
        roles: Which sides are distilled, of ``"query"``, ``"document"`` and ``"negatives"``.
        tile_rows: Rows in a tile of similarities; by default what fits a few megabytes.

    Raises:
        ValueError: If an option is wrong; in a step, if embeddings or teacher embeddings are missing.

    >>> z = torch.eye(2)
    >>> ScoreDistillation()(EmbeddingBatch(z, z, query_teacher=z, document_teacher=z))
    tensor(0.)
    """

    def __init__(
        self,
        temperature: float | Schedule | LearnableTemperature = 0.02,
        *,
        teacher_temperature: float | None = None,
        divergence: Divergence = "mse",
        skip_self: bool = False,
        roles: Sequence[str] = ("query", "document"),
        tile_rows: int | None = None,
    ) -> None:
        super().__init__()
        if divergence not in get_args(Divergence):
            raise ValueError(f"Got divergence {divergence!r}; need one of {', '.join(get_args(Divergence))}.")
        self.temperature = temperature_source(temperature)
        if teacher_temperature is not None:
            check_temperature(teacher_temperature)
        self.teacher_temperature = teacher_temperature
        self.divergence: Divergence = divergence
        self.skip_self, self.roles, self.tile_rows = skip_self, checked_roles(roles), tile_rows

    def forward(self, batch: EmbeddingBatch) -> Tensor:
        """Return the sum over the roles; texts of all ranks are compared where the batch has been gathered."""
        return self._sum(batch, None, None)

    def terms_at_dims(
        self, batch: EmbeddingBatch, dims: Sequence[int], weights: Sequence[float]
    ) -> dict[str, TermValue]:
        """Return the weighted sum over truncated embeddings, whose inner products are computed once for all dims."""
        return {"": TermValue(self._sum(batch, dims, weights), 1.0)}

    def watched(self, step: int) -> dict[str, Tensor | float]:
        """Return the temperature where it changes."""
        return self.temperature.watched("temperature", step)

    def _sum(self, batch: EmbeddingBatch, dims: Sequence[int] | None, weights: Sequence[float] | None) -> Tensor:
        values = [
            score_distillation(
                batch.everywhere.student(role),
                batch.everywhere.teacher(role),
                temperature=self.temperature.at(batch.step),
                teacher_temperature=self.teacher_temperature,
                divergence=self.divergence,
                skip_self=self.skip_self,
                rows=batch.rows_of(role),
                dims=dims,
                dim_weights=weights,
                tile_rows=self.tile_rows,
            )
            * batch.share(role)
            for role in self.roles
        ]
        return torch.stack(values).sum()
