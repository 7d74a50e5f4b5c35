import pytest
import torch

from lightning_jv5.losses import (
    ByScore,
    CoSENT,
    EmbeddingBatch,
    EmbeddingDistillation,
    InfoNCE,
    LearnableTemperature,
    Matryoshka,
    Objective,
    Term,
)
from lightning_jv5.models import Projection
from tests.losses.comparing import rows


def text_matching() -> Objective:
    """arXiv:2602.15547 eq. 6."""
    unscored = Objective(
        {
            "contrast": Term(InfoNCE(LearnableTemperature(0.02))),
            "distill": Term(EmbeddingDistillation(Projection(6, 3)), weight=2.0),
        }
    )
    return Objective({"sts": Term(ByScore(CoSENT(LearnableTemperature(0.05)), unscored))})


def scored() -> EmbeddingBatch:
    return EmbeddingBatch(rows(4, seed=0), rows(4, seed=1), score=torch.arange(4.0))


def unscored() -> EmbeddingBatch:
    teachers = {"query_teacher": rows(4, 3, seed=2), "document_teacher": rows(4, 3, seed=3)}
    return EmbeddingBatch(rows(4, seed=0), rows(4, seed=1), **teachers)


def test_the_batch_decides_which_loss_it_is() -> None:
    objective = text_matching()
    cosent, other = objective.terms["sts"].scored, objective.terms["sts"].unscored
    assert list(objective.named_terms(scored())) == ["sts/scored"]
    assert list(objective.named_terms(unscored())) == ["sts/unscored/contrast", "sts/unscored/distill"]
    assert torch.equal(objective(scored()), cosent(scored()))
    torch.testing.assert_close(objective(unscored()), other(unscored()))
    assert set(objective.watched(0)) == {"sts/scored/temperature", "sts/unscored/contrast/temperature"}


@pytest.mark.parametrize("batch", [scored(), unscored()], ids=["scored", "unscored"])
def test_every_parameter_is_part_of_every_step(batch: EmbeddingBatch) -> None:
    for objective in (text_matching(), Matryoshka(text_matching(), [6, 3]), text_matching().terms["sts"]):
        objective.zero_grad()
        objective(batch).backward(retain_graph=True)
        gradients = {name: parameter.grad for name, parameter in objective.named_parameters()}
        assert all(gradient is not None for gradient in gradients.values())
        used = {
            name.split(".")[-2 if "log" in name else -1] for name, g in gradients.items() if g is not None and g.any()
        }
        assert used == ({"temperature"} if batch.score is not None else {"temperature", "weight", "bias"})


def test_unused_parameters_that_are_not_finite_do_no_harm() -> None:
    objective = text_matching()
    with torch.no_grad():
        for name, parameter in objective.named_parameters():
            if "unscored" in name:
                parameter.fill_(torch.nan)
    assert objective(scored()).isfinite()


def test_under_matryoshka_each_batch_takes_its_own_way() -> None:
    objective = text_matching()
    for batch in (scored(), unscored()):
        together = Matryoshka(objective, [6, 3], [1.0, 0.5])(batch)
        torch.testing.assert_close(together, objective(batch) + 0.5 * objective(batch.truncate(3)))
