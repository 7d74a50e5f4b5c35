from typing import Any

import pytest
import torch

from lightning_jv5.losses import EmbeddingBatch, Matryoshka, ScoreDistillation, score_distillation
from tests.losses.comparing import assert_same, doubled, rows
from tests.references import slow_score_distillation

OPTIONS: list[dict[str, Any]] = [
    {},
    {"divergence": "kl"},
    {"skip_self": True},
    {"divergence": "kl", "skip_self": True, "teacher_temperature": 0.7},
]


def reference(student: Any, teacher: Any, temperature: Any, divergence: str = "mse", **options: Any) -> Any:
    return slow_score_distillation(student, teacher, temperature, kl=divergence == "kl", **options)


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("tile_rows", [2, None])
def test_score_distillation_matches_slow_reference(options: dict[str, Any], tile_rows: int | None) -> None:
    student, teacher = rows(5, 6, seed=0), rows(5, 3, seed=1).detach()
    temperature = torch.tensor(0.4, requires_grad=True)
    settings = {"teacher_temperature": 0.4, **options}  # or it would move with the student's
    loss = score_distillation(student, teacher, temperature=temperature, tile_rows=tile_rows, **settings)
    copies = doubled(student, temperature)
    expected = reference(copies[0], teacher.double(), copies[1], **settings)
    assert_same(loss, [student, temperature], expected, copies)


@pytest.mark.parametrize("options", OPTIONS)
def test_all_matryoshka_dims_at_once_are_the_sum_over_truncated_embeddings(options: dict[str, Any]) -> None:
    student, teacher = rows(5, 6, seed=0), rows(5, 3, seed=1).detach()
    loss = score_distillation(
        student, teacher, temperature=0.4, dims=[6, 2], dim_weights=[1.0, 0.5], tile_rows=2, **options
    )
    copies = doubled(student)
    expected = sum(
        weight * reference(copies[0][:, :dim], teacher.double(), 0.4, **options) for dim, weight in ((6, 1.0), (2, 0.5))
    )
    assert_same(loss, [student], expected, copies)


@pytest.mark.parametrize("options", OPTIONS)
def test_gradient_agrees_with_finite_differences(options: dict[str, Any]) -> None:
    teacher = rows(4, 3, seed=1, dtype=torch.float64).detach()
    student = rows(4, 4, dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda s: score_distillation(s, teacher, temperature=0.5, tile_rows=3, **options), (student,)
    )


def test_the_teacher_does_not_move_with_the_temperature() -> None:
    student, teacher = rows(4, seed=0), rows(4, 3, seed=1)
    temperature = torch.tensor(0.4, requires_grad=True)
    moving, fixed = (
        torch.autograd.grad(score_distillation(student, teacher, temperature=temperature, **options), temperature)[0]
        for options in ({}, {"teacher_temperature": 0.4})
    )
    torch.testing.assert_close(moving, fixed)


def test_no_texts_are_no_loss() -> None:
    assert score_distillation(torch.zeros(0, 3), torch.zeros(0, 2)).item() == 0


def test_a_part_of_the_rows_is_averaged_over_all_columns() -> None:
    student, teacher = rows(6, seed=0), rows(6, seed=1).detach()
    whole = score_distillation(student, teacher, temperature=0.3)
    parts = [score_distillation(student, teacher, temperature=0.3, rows=part) for part in (slice(0, 2), slice(2, 6))]
    torch.testing.assert_close(parts[0] * 2 / 6 + parts[1] * 4 / 6, whole)


@pytest.mark.parametrize("options", OPTIONS)
def test_hard_cases_stay_finite(options: dict[str, Any]) -> None:
    for student in (rows(1), torch.zeros(3, 4, requires_grad=True), torch.ones(3, 4, requires_grad=True), rows(5)):
        loss = score_distillation(student, rows(len(student), seed=1), temperature=0.005, **options)
        assert loss.isfinite()
        assert torch.autograd.grad(loss, student)[0].isfinite().all()


def test_the_module_sums_over_its_roles_and_takes_the_short_way_under_matryoshka() -> None:
    query, document = rows(4, seed=0), rows(4, seed=1)
    batch = EmbeddingBatch(query, document, query_teacher=document, document_teacher=query)
    loss = ScoreDistillation(0.2)
    expected = score_distillation(query, document, temperature=0.2) + score_distillation(
        document, query, temperature=0.2
    )
    torch.testing.assert_close(loss(batch), expected)
    one_by_one = 0.5 * loss(batch) + 0.5 * loss(batch.truncate(3))
    torch.testing.assert_close(Matryoshka(loss, [6, 3])(batch), one_by_one)


def test_what_is_wrong_is_said() -> None:
    z = torch.eye(3)
    with pytest.raises(ValueError, match="Got 3 student and 2 teacher rows; need the same texts in both"):
        score_distillation(z, z[:2])
    with pytest.raises(ValueError, match="Got divergence 'js'; need one of mse, kl"):
        score_distillation(z, z, divergence="js")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="Got divergence 'js'; need one of mse, kl"):
        ScoreDistillation(divergence="js")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="Got temperature 0; need a positive number"):
        score_distillation(z, z, teacher_temperature=0)
    with pytest.raises(ValueError, match="Got temperature 0; need a positive number"):
        ScoreDistillation(teacher_temperature=0)
    with pytest.raises(ValueError, match="a batch of 'nq' without teacher embeddings for query"):
        ScoreDistillation()(EmbeddingBatch(z, z, dataset="nq"))
