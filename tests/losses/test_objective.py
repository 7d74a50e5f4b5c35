import pytest
import torch
from torch import Tensor

from lightning_jv5.losses import EmbeddingBatch, LinearRamp, Loss, Matryoshka, Objective, Term, TermValue


class MeanCoordinate(Loss):
    """Something simple that differs between truncations."""

    def __init__(self, coordinate: int = 0) -> None:
        super().__init__()
        self.coordinate = coordinate

    def forward(self, batch: EmbeddingBatch) -> Tensor:
        return batch.query[:, self.coordinate].mean()


def query(seed: int = 0) -> EmbeddingBatch:
    return EmbeddingBatch(torch.randn(3, 4, generator=torch.Generator().manual_seed(seed), requires_grad=True))


def values(terms: dict[str, TermValue]) -> dict[str, tuple[float, float]]:
    return {name: (term.value.item(), term.weight) for name, term in terms.items()}


def test_objective_is_the_weighted_sum_of_its_named_terms() -> None:
    batch = query()
    objective = Objective({"first": Term(MeanCoordinate(0), 2.0), "second": Term(MeanCoordinate(1), weight=-0.5)})
    first, second = (batch.query[:, coordinate].mean().item() for coordinate in (0, 1))
    assert values(objective.named_terms(batch)) == {"first": (first, 2.0), "second": (second, -0.5)}
    assert objective(batch).item() == pytest.approx(2 * first - 0.5 * second)


def test_an_objective_in_an_objective_keeps_both_names_and_multiplies_weights() -> None:
    batch = query()
    inner = Objective({"b": Term(MeanCoordinate(0), 2.0), "c": Term(MeanCoordinate(1), 3.0)})
    objective = Objective({"a": Term(inner, 0.5), "d": Term(MeanCoordinate(2))})
    terms = objective.named_terms(batch)
    assert {name: term.weight for name, term in terms.items()} == {"a/b": 1.0, "a/c": 1.5, "d": 1.0}
    expected = 0.5 * inner(batch) + MeanCoordinate(2)(batch)
    torch.testing.assert_close(objective(batch), expected)


def test_matryoshka_around_an_objective_keeps_names_and_is_the_sum_over_dims() -> None:
    batch, dims, weights = query(), [4, 2], [0.3, 0.6]
    objective = Objective({"first": Term(MeanCoordinate(0), 2.0), "second": Term(MeanCoordinate(1))})
    matryoshka = Matryoshka(objective, dims, weights)
    terms = matryoshka.named_terms(batch)
    assert {name: term.weight for name, term in terms.items()} == {"first": 2.0, "second": 1.0}
    for name, loss in objective.terms.items():
        by_dim = [weight * loss(batch.truncate(dim)) for dim, weight in zip(dims, weights, strict=True)]
        torch.testing.assert_close(terms[name].value, sum(by_dim))
    expected = sum(weight * objective(batch.truncate(dim)) for dim, weight in zip(dims, weights, strict=True))
    torch.testing.assert_close(matryoshka(batch), expected)


def test_a_loss_alone_is_one_nameless_term() -> None:
    assert list(Matryoshka(MeanCoordinate(), [2]).named_terms(query())) == [""]
    assert list(Objective({"term": Term(MeanCoordinate())}).named_terms(query())) == ["term"]


def test_terms_train_with_the_objective() -> None:
    linear = torch.nn.Linear(2, 2)

    class WithWeights(MeanCoordinate):
        def __init__(self) -> None:
            super().__init__()
            self.linear = linear

    assert set(Objective({"term": Term(WithWeights())}).parameters()) == set(linear.parameters())


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ({}, "without terms; name at least one"),
        ({"a/b": Term(MeanCoordinate())}, "term name 'a/b'; it becomes the log key"),
        ({"": Term(MeanCoordinate())}, "term name ''"),
        ({"loss": Term(MeanCoordinate())}, "'train/loss' is the weighted sum"),
        ({"a": Term(MeanCoordinate(), float("nan"))}, "weight nan for the term 'a'; it must be a finite number"),
    ],
)
def test_wrong_terms_are_named(terms: dict[str, Term], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Objective(terms)


@pytest.mark.parametrize("name", ["lr", "grad_norm"])
def test_a_term_does_not_take_the_name_of_what_the_module_logs(name: str) -> None:
    with pytest.raises(ValueError, match=f"'train/{name}'"):
        Objective({name: Term(MeanCoordinate())})


@pytest.mark.parametrize("dims", [[], [0], [2, 2]])
def test_wrong_matryoshka_dims_are_named(dims: list[int]) -> None:
    with pytest.raises(ValueError, match=r"Got Matryoshka dims .*; need one or more positive numbers, each once"):
        Matryoshka(MeanCoordinate(), dims)


def test_matryoshka_needs_a_weight_for_each_dim() -> None:
    with pytest.raises(ValueError, match="Got 1 weights for 2 Matryoshka dims"):
        Matryoshka(MeanCoordinate(), [2, 1], [1.0])


def test_a_loss_without_forward_says_so() -> None:
    with pytest.raises(NotImplementedError, match="Loss must define forward"):
        Loss()(query())


def test_a_weight_can_follow_a_schedule_and_is_then_watched() -> None:
    objective = Objective(
        {"first": Term(MeanCoordinate(0), LinearRamp(0.0, 2.0, 4)), "second": Term(MeanCoordinate(1))}
    )
    for step, weight in ((0, 0.0), (2, 1.0), (9, 2.0)):
        batch = query()
        batch.step = step
        assert objective.named_terms(batch)["first"].weight == weight
        assert Matryoshka(objective, [4, 2]).named_terms(batch)["first"].weight == weight
        assert objective.watched(step) == {"first/weight": weight}
        assert Matryoshka(objective, [4, 2]).watched(step) == {"first/weight": weight}


def test_a_complaint_says_which_term_it_is_from() -> None:
    class Complaining(MeanCoordinate):
        def forward(self, batch: EmbeddingBatch) -> Tensor:
            raise ValueError("no such thing")

    with pytest.raises(ValueError, match="no such thing") as raised:
        Objective({"fine": Term(MeanCoordinate()), "picky": Term(Complaining())})(query())
    assert raised.value.__notes__ == ["It came from the term 'picky' of the objective."]


def test_dims_that_are_drawn_are_the_same_in_every_process_and_right_on_average() -> None:
    dims, weights = [32, 16, 8, 4], [1.0, 0.5, 0.25, 2.0]
    loss = Matryoshka(MeanCoordinate(), dims, weights, dims_per_step=2, seed=3)
    again = Matryoshka(MeanCoordinate(), dims, weights, dims_per_step=2, seed=3)
    drawn = [loss.drawn(step) for step in range(3000)]
    assert drawn == [again.drawn(step) for step in range(3000)]
    assert {len(chosen) for chosen, _ in drawn} == {2}
    assert {chosen[0] for chosen, _ in drawn} == {32}
    for dim, weight in zip(dims, weights, strict=True):
        given = [dict(zip(*step, strict=True)).get(dim, 0.0) for step in drawn]
        assert sum(given) / len(given) == pytest.approx(weight, rel=0.1)
    assert Matryoshka(MeanCoordinate(), dims, weights, dims_per_step=1).drawn(0) == ([32], [1.0])


def test_drawn_dims_are_what_is_computed() -> None:
    batch = query()
    batch.step = 5
    loss = Matryoshka(MeanCoordinate(), [4, 3, 2], dims_per_step=2)
    expected = sum(weight * MeanCoordinate()(batch.truncate(dim)) for dim, weight in zip(*loss.drawn(5), strict=True))
    torch.testing.assert_close(loss(batch), expected)


@pytest.mark.parametrize("count", [0, 3])
def test_dims_per_step_is_some_of_the_dims(count: int) -> None:
    with pytest.raises(ValueError, match=f"Got dims_per_step {count} of 2 dims; need 1 to 2"):
        Matryoshka(MeanCoordinate(), [4, 2], dims_per_step=count)
