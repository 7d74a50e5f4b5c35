"""The formulas again, slow and obvious: plain Python loops in float64."""

import math
from collections.abc import Sequence

from torch import Tensor


def slow_cosine(a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    return dot / (sum(x * x for x in a).sqrt() * sum(y * y for y in b).sqrt())


def slow_projection(z: Tensor, weight: Tensor, bias: Tensor) -> list[Tensor]:
    """``psi(z) = W z + b``; a truncated ``z`` meets the first columns of ``W`` and the whole ``b``."""
    return [
        sum((weight[row, column] * z[column] for column in range(len(z))), start=bias[row]) for row in range(len(bias))
    ]


def slow_embedding_distillation(
    sides: Sequence[tuple[Tensor, Tensor]], weight: Tensor | None = None, bias: Tensor | None = None
) -> Tensor:
    """arXiv:2602.15547 eq. 1 over the sides ``(student, teacher)``, averaged over the batch rather than summed."""
    total = 0.0
    for student, teacher in sides:
        for z_student, z_teacher in zip(student.double(), teacher.double(), strict=True):
            mapped = z_student if weight is None else slow_projection(z_student, weight.double(), bias.double())
            total = total + (1 - slow_cosine(mapped, z_teacher)) / len(student)
    return total


def slow_warmup(step: int, warmup_steps: int, total_steps: int) -> tuple[float, float]:
    """The factor of the warm-up (1 after it), and the share of the decay that is behind us."""
    if step < warmup_steps:
        return (step + 1) / warmup_steps, 0.0
    if total_steps == warmup_steps:
        return 1.0, 1.0
    return 1.0, min(1.0, (step - warmup_steps) / (total_steps - warmup_steps))


def slow_cosine_decay(progress: float) -> float:
    return (1 + math.cos(math.pi * progress)) / 2


def slow_linear_decay(progress: float) -> float:
    return 1 - progress


def slow_stable_decay(progress: float, decay_share: float) -> float:
    start = 1 - decay_share
    return 1.0 if progress <= start else 1 - math.sqrt((progress - start) / decay_share)
