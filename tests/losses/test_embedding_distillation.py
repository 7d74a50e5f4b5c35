import pytest
import torch
from torch import Tensor

from lightning_jv5.losses import EmbeddingBatch, EmbeddingDistillation, Matryoshka, embedding_distillation
from lightning_jv5.models import Projection
from tests.references import slow_embedding_distillation

ROLES = ("query", "document", "negatives")


def rows(count: int, dim: int, seed: int) -> Tensor:
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed))


def batch(dim: int = 6, teacher_dim: int = 4, count: int = 3) -> EmbeddingBatch:
    student = {
        role: torch.nn.functional.normalize(rows(count + (role == "negatives"), dim, seed), dim=-1).requires_grad_()
        for seed, role in enumerate(ROLES)
    }
    teacher = {
        f"{role}_teacher": rows(count + (role == "negatives"), teacher_dim, seed + 10)
        for seed, role in enumerate(ROLES)
    }
    return EmbeddingBatch(**student, **teacher)


def projection(dim: int = 6, teacher_dim: int = 4) -> Projection:
    torch.manual_seed(0)
    psi = Projection(dim, teacher_dim)
    torch.nn.init.normal_(psi.weight)
    torch.nn.init.normal_(psi.bias)
    return psi


def sides(of: EmbeddingBatch, roles: tuple[str, ...]) -> list[tuple[Tensor, Tensor]]:
    return [(getattr(of, role), getattr(of, f"{role}_teacher")) for role in roles]


def assert_same_value_and_gradients(loss: Tensor, expected: Tensor, inputs: list[Tensor]) -> None:
    torch.testing.assert_close(loss.double(), expected, atol=1e-6, rtol=1e-6)
    gradients = torch.autograd.grad(loss, inputs, retain_graph=True, allow_unused=True)
    expected_gradients = torch.autograd.grad(expected, inputs, allow_unused=True)
    torch.testing.assert_close(gradients, expected_gradients, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("roles", [("query",), ("document", "query"), ROLES])
def test_embedding_distillation_matches_slow_reference(roles: tuple[str, ...]) -> None:
    of, psi = batch(), projection()
    loss = EmbeddingDistillation(psi, roles=roles)(of)
    expected = slow_embedding_distillation(sides(of, roles), psi.weight, psi.bias)
    assert_same_value_and_gradients(loss, expected, [psi.weight, psi.bias, *(getattr(of, role) for role in roles)])


def test_without_projection_both_spaces_are_the_same() -> None:
    of = batch(teacher_dim=6)
    loss = EmbeddingDistillation()(of)
    expected = slow_embedding_distillation(sides(of, ("query", "document")))
    assert_same_value_and_gradients(loss, expected, [of.query, of.document])


@pytest.mark.parametrize("dim", [6, 2])
def test_teacher_projection_maps_the_teacher_to_the_students_coordinates(dim: int) -> None:
    of, psi = batch(), projection(4, 6)
    cut = of.truncate(dim)
    loss = EmbeddingDistillation(teacher_projection=psi)(cut)
    mapped = [
        (getattr(cut, role), (getattr(of, f"{role}_teacher") @ psi.weight.T + psi.bias)[:, :dim])
        for role in ("query", "document")
    ]
    assert_same_value_and_gradients(loss, slow_embedding_distillation(mapped), [of.query, psi.weight, psi.bias])


@pytest.mark.parametrize("weights", [None, [0.5, 2.0, 3.0]])
def test_under_matryoshka_psi_uses_its_first_columns_and_the_same_bias(weights: list[float] | None) -> None:
    of, psi, dims = batch(), projection(), [6, 3, 1]
    loss = Matryoshka(EmbeddingDistillation(psi), dims=dims, weights=weights)(of)
    expected = sum(
        weight
        * slow_embedding_distillation(
            [(student[:, :dim], teacher) for student, teacher in sides(of.truncate(dim), ("query", "document"))],
            psi.weight,
            psi.bias,
        )
        for weight, dim in zip(weights or [1 / 3] * 3, dims, strict=True)
    )
    assert_same_value_and_gradients(loss, expected, [of.query, of.document, psi.weight, psi.bias])


def test_gradient_agrees_with_finite_differences() -> None:
    student, teacher = rows(3, 5, 0).double().requires_grad_(), rows(3, 5, 1).double()
    assert torch.autograd.gradcheck(lambda z: embedding_distillation(z, teacher), (student,))


def test_hard_cases_stay_finite() -> None:
    student = rows(3, 4, 0)
    student[1] = 0
    student.requires_grad_()
    loss = embedding_distillation(student, rows(3, 4, 1))
    gradient = torch.autograd.grad(loss, student)[0]
    assert gradient.isfinite().all()
    assert not gradient[1].any()
    assert embedding_distillation(student[:0], student[:0]) == 0


@pytest.mark.parametrize("scale", [1e-3, 7.0, 1e3])
def test_only_directions_count(scale: float) -> None:
    student, teacher = rows(4, 5, 0), rows(4, 5, 1)
    torch.testing.assert_close(
        embedding_distillation(student * scale, teacher / scale), embedding_distillation(student, teacher)
    )


def test_bfloat16_embeddings_are_compared_in_float32() -> None:
    student, teacher = rows(4, 64, 0).bfloat16(), rows(4, 64, 1).bfloat16()
    loss = embedding_distillation(student, teacher)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss.double(), slow_embedding_distillation([(student, teacher)]), atol=1e-6, rtol=1e-6)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(embedding_distillation(student.float(), teacher.float()), loss)
        whole = EmbeddingDistillation(projection())(batch())
    assert whole.dtype == torch.float32


def test_projection_under_autocast_is_computed_in_float32() -> None:
    loss, of = EmbeddingDistillation(projection()), batch()
    with torch.autocast("cpu", torch.bfloat16):
        under_autocast = loss(of)
    assert torch.equal(under_autocast, loss(of))


def test_what_is_missing_is_named() -> None:
    z = rows(2, 3, 0)
    with pytest.raises(ValueError, match=r"student embeddings \(2, 3\) and teacher embeddings \(2, 4\)"):
        embedding_distillation(z, rows(2, 4, 0))
    with pytest.raises(ValueError, match="same \\(batch, dim\\)"):
        embedding_distillation(z[0], z[0])
    with pytest.raises(ValueError, match="NaN or infinite teacher embeddings in 2 rows"):
        embedding_distillation(z, z * float("nan"))
    with pytest.raises(ValueError, match="a batch of 'nq' without document embeddings"):
        EmbeddingDistillation()(EmbeddingBatch(z, query_teacher=z, dataset="nq"))
    with pytest.raises(ValueError, match=r"without teacher embeddings for query; .* a column query_teacher"):
        EmbeddingDistillation()(EmbeddingBatch(z, z, document_teacher=z))


@pytest.mark.parametrize("roles", [[], ["query", "query"], ["text"]])
def test_wrong_roles_are_named(roles: list[str]) -> None:
    with pytest.raises(ValueError, match=r"Got roles .*; name one or more of"):
        EmbeddingDistillation(roles=roles)


def test_only_one_side_is_projected() -> None:
    with pytest.raises(ValueError, match="map the student or the teacher, not both"):
        EmbeddingDistillation(Projection(2, 2), teacher_projection=Projection(2, 2))
