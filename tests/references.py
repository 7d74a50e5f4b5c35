"""The formulas again, slow and obvious: plain Python loops in float64."""

import math
from collections.abc import Sequence

import torch
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


def slow_info_nce(
    anchors: Sequence[Tensor],
    answers: Sequence[Sequence[Tensor]],
    negatives: Sequence[Sequence[Tensor]],
    temperature: float | Tensor,
    hardness: float = 0.0,
) -> Tensor:
    """arXiv:2602.15547 eq. 2, one softmax per anchor and answer; with several answers, their mean."""
    total = 0.0
    for anchor, own_answers, own_negatives in zip(anchors, answers, negatives, strict=True):
        against = 0.0
        for negative in own_negatives:
            cosine = slow_cosine(anchor, negative)
            against = against + (hardness * cosine.detach()).exp() * (cosine / temperature).exp()
        for answer in own_answers:
            similarity = (slow_cosine(anchor, answer) / temperature).exp()
            total = total - (similarity / (similarity + against)).log() / (len(own_answers) * len(anchors))
    return total


def slow_cosent(query: Tensor, document: Tensor, score: Tensor, temperature: float) -> Tensor:
    """arXiv:2602.15547 eq. 5 in its published form: all pairs of pairs with different scores."""
    cosines = [slow_cosine(q, d) for q, d in zip(query, document, strict=True)]
    total = query.new_ones(())
    for i in range(len(query)):
        for j in range(len(query)):
            if score[i] > score[j]:
                total = total + ((cosines[j] - cosines[i]) / temperature).exp()
    return total.log()


def slow_spread_out(embeddings: Tensor) -> Tensor:
    """One half of arXiv:2602.15547 eq. 3."""
    rows = len(embeddings)
    cosines = [slow_cosine(embeddings[i], embeddings[j]) for i in range(rows) for j in range(rows) if i != j]
    return sum(cosine**2 for cosine in cosines) / (rows * (rows - 1))


def slow_relational_distillation(student: Tensor, reference: Tensor) -> Tensor:
    """arXiv:2602.15547 eq. 8."""
    texts = range(len(student))
    of_student = [[1 - slow_cosine(student[i], student[j]) for j in texts] for i in texts]
    of_reference = [[1 - slow_cosine(reference[i], reference[j]) for j in texts] for i in texts]
    student_mean = sum(sum(row) for row in of_student) / len(student) ** 2
    reference_mean = sum(sum(row) for row in of_reference) / len(student) ** 2
    return (
        sum((of_student[i][j] / student_mean - of_reference[i][j] / reference_mean) ** 2 for i in texts for j in texts)
        / len(student) ** 2
    )


def slow_score_distillation(
    student: Tensor,
    teacher: Tensor,
    temperature: float | Tensor,
    *,
    teacher_temperature: float | None = None,
    kl: bool = False,
    skip_self: bool = False,
) -> Tensor:
    """arXiv:2602.15547 eq. 9 and 10 for one role; or the Kullback-Leibler divergence of the same distributions."""
    total = 0.0
    for i in range(len(student)):
        others = [j for j in range(len(student)) if not (skip_self and i == j)]
        shares = []
        for model, tau in ((student, temperature), (teacher, teacher_temperature or temperature)):
            weights = [(slow_cosine(model[i], model[j]) / tau).exp() for j in others]
            shares.append([weight / sum(weights) for weight in weights])
        for p_student, p_teacher in zip(*shares, strict=True):
            difference = p_teacher * (p_teacher / p_student).log() if kl else (p_student - p_teacher) ** 2
            total = total + difference / len(student)
    return total


def slow_binary_consistency(query: Tensor, document: Tensor, sharpness: float) -> Tensor:
    """All pairs; a sign that passes the gradient of a hyperbolic tangent."""

    def code(z: Tensor) -> Tensor:
        soft = (sharpness * math.sqrt(len(z)) * z / z.norm()).tanh()
        return soft + (z.sign() - soft).detach()

    pairs = [(q, d) for q in query for d in document]
    return sum(((code(q) * code(d)).sum() / len(q) - slow_cosine(q, d)) ** 2 for q, d in pairs) / len(pairs)


def slow_lora_weight(weight: Tensor, a: Tensor, b: Tensor, *, alpha: float, rank: int) -> Tensor:
    """``W + B A (alpha / r)``, one number at a time, in float64: https://arxiv.org/abs/2106.09685."""
    w, a, b = (tensor.double().tolist() for tensor in (weight, a, b))
    rows, columns = range(len(w)), range(len(w[0]))
    return torch.tensor(
        [[w[i][j] + sum(b[i][k] * a[k][j] for k in range(rank)) * alpha / rank for j in columns] for i in rows],
        dtype=torch.float64,
    )
