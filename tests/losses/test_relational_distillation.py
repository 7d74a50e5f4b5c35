import pytest
import torch

from lightning_jv5.losses import EmbeddingBatch, RelationalDistillation, relational_distillation
from tests.losses.comparing import assert_same, doubled, rows
from tests.references import slow_relational_distillation


@pytest.mark.parametrize(("texts", "dim", "reference_dim"), [(3, 3, 3), (7, 4, 2), (6, 3, 8)])
def test_relational_distillation_matches_slow_reference(texts: int, dim: int, reference_dim: int) -> None:
    student, reference = rows(texts, dim, seed=0), rows(texts, reference_dim, seed=1).detach()
    copies = doubled(student)
    expected = slow_relational_distillation(*copies, reference.double())
    assert_same(relational_distillation(student, reference), [student], expected, copies)


def test_gradient_agrees_with_finite_differences() -> None:
    reference = rows(5, 3, seed=1).detach()
    student = rows(5, 4, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda s: relational_distillation(s, reference), (student,))


def test_models_that_nearly_agree_keep_their_difference() -> None:
    reference = rows(300, 16).detach()
    student = (reference + 1e-4 * rows(300, 16, seed=1).detach()).requires_grad_()
    s, t = (torch.nn.functional.normalize(z.double(), dim=-1) for z in (student, reference))
    a, b = 1 - s @ s.T, 1 - t @ t.T
    expected = (a / a.mean() - b / b.mean()).square().mean()  # 1e-8: float32 sums of about 1 would lose it
    loss = relational_distillation(student, reference)
    torch.testing.assert_close(loss.double(), expected.detach(), atol=0, rtol=1e-4)
    gradient, wanted = (torch.autograd.grad(value, student)[0] for value in (loss, expected))
    torch.testing.assert_close(gradient, wanted, atol=1e-3 * wanted.abs().max().item(), rtol=0)


def test_hard_cases_stay_finite() -> None:
    some = rows(4, 4, seed=3)
    same, zero = (torch.full((4, 4), value, requires_grad=True) for value in (1.0, 0.0))
    for student, reference in ((rows(1, 4), rows(1, 4)), (same, some), (some, same), (zero, some)):
        loss = relational_distillation(student, reference)
        assert loss.isfinite()
        assert torch.autograd.grad(loss, student)[0].isfinite().all()


def test_the_reference_learns_nothing() -> None:
    student, reference = rows(4, seed=0), rows(4, seed=1)
    relational_distillation(student, reference).backward()
    assert reference.grad is None


def test_the_module_takes_all_texts_together() -> None:
    parts = {role: rows(count, 4, seed) for seed, (role, count) in
             enumerate([("query", 3), ("document", 3), ("negatives", 5)])}  # fmt: skip
    teachers = {f"{role}_teacher": rows(len(part), 2, seed) for seed, (role, part) in enumerate(parts.items(), start=5)}
    batch = EmbeddingBatch(**parts, **teachers)
    expected = relational_distillation(torch.cat(list(parts.values())), torch.cat(list(teachers.values())))
    assert torch.equal(RelationalDistillation()(batch), expected)
    pair = EmbeddingBatch(
        query=parts["query"], document=parts["document"], query_teacher=teachers["query_teacher"],
        document_teacher=teachers["document_teacher"],
    )  # fmt: skip
    assert RelationalDistillation()(pair) != expected  # without negatives, those of the pairs alone


def test_what_is_wrong_is_said() -> None:
    z = torch.eye(3)
    with pytest.raises(ValueError, match="Got 3 student and 2 reference rows; need the same texts"):
        relational_distillation(z, z[:2])
    with pytest.raises(ValueError, match="a batch of 'nq' without teacher embeddings for query"):
        RelationalDistillation()(EmbeddingBatch(z, dataset="nq"))
    with pytest.raises(ValueError, match=r"with none of \['negatives'\]; name others in roles"):
        RelationalDistillation(["negatives"])(EmbeddingBatch(z))
