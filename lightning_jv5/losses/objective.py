"""The objective: named, weighted terms. Each takes the same batch, so the objective never asks their kind."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from lightning_jv5.losses.batch import EmbeddingBatch
from lightning_jv5.losses.loss import Loss, TermValue, tied, weighted_sum
from lightning_jv5.losses.schedule import Schedule, as_schedule
from lightning_jv5.rebuildable import Rebuildable

# Names of what the module itself logs while it trains
_TAKEN = {"loss": "the weighted sum", "grad_norm": "the gradient's norm", "lr": "the learning rate"}


@dataclass
class Term(Rebuildable):
    """A loss and its weight (unitless, a number or a schedule) in an :class:`Objective`."""

    loss: Loss
    weight: float | Schedule = 1.0


class Objective(Loss):
    """Sum named terms, each logged as ``train/<name>`` before its weight is applied.

    A weight that is a schedule is logged as ``train/<name>/weight``. Every trainable parameter of the terms is part of
    each step's graph, used or not, as DDP needs.

    Args:
        terms: Loss and weight by name. Names become log keys, so they may hold letters, digits, ``_`` and ``-`` only.

    Raises:
        ValueError: If there are no terms, a name cannot be a log key, or a weight is not finite.

    >>> import torch
    >>> from lightning_jv5.losses import EmbeddingBatch, EmbeddingDistillation
    >>> objective = Objective({"distill": Term(EmbeddingDistillation(), weight=2.0)})
    >>> student, teacher = torch.eye(2), torch.eye(2).flip(0)  # orthogonal: 1 - cos is 1 for each side
    >>> float(objective(EmbeddingBatch(student, student, query_teacher=teacher, document_teacher=teacher)))
    4.0
    """

    def __init__(self, terms: dict[str, Term]) -> None:
        super().__init__()
        if not terms:
            raise ValueError("Got an objective without terms; name at least one, such as {'distill': {'loss': ...}}.")
        self.weights: dict[str, Schedule] = {}
        for name, term in terms.items():
            if not name.replace("_", "").replace("-", "").isalnum():
                raise ValueError(
                    f"Got the term name {name!r}; it becomes the log key 'train/{name}', "
                    "so use letters, digits, '_' and '-' only."
                )
            if name in _TAKEN:
                raise ValueError(
                    f"Got a term named {name!r}, but 'train/{name}' is {_TAKEN[name]}; choose another name."
                )
            try:
                self.weights[name] = as_schedule(term.weight)
            except ValueError as error:
                raise ValueError(
                    f"Got weight {term.weight} for the term {name!r}; it must be a finite number."
                ) from error
        self.terms = nn.ModuleDict({name: term.loss for name, term in terms.items()})

    def forward(self, batch: EmbeddingBatch) -> Tensor:
        """Return the weighted sum."""
        return weighted_sum(self.named_terms(batch))

    def named_terms(self, batch: EmbeddingBatch) -> dict[str, TermValue]:
        """Return every term by name; an objective inside an objective keeps both names, as ``outer/inner``."""
        return self._weighted(batch.step, lambda loss: loss.named_terms(batch))

    def terms_at_dims(
        self, batch: EmbeddingBatch, dims: Sequence[int], weights: Sequence[float]
    ) -> dict[str, TermValue]:
        """Return every term summed over truncated embeddings, each as its loss does that best."""
        return self._weighted(batch.step, lambda loss: loss.terms_at_dims(batch, dims, weights))

    def _weighted(self, step: int, terms_of: Callable[[Loss], dict[str, TermValue]]) -> dict[str, TermValue]:
        values = {}
        for name, loss in self.terms.items():
            try:
                terms = terms_of(loss)  # type: ignore[arg-type]
            except ValueError as error:
                error.add_note(f"It came from the term {name!r} of the objective.")
                raise
            for inner, term in terms.items():
                values[joined(name, inner)] = TermValue(term.value, self.weights[name].at(step) * term.weight)
        return tied(values, self.parameters())

    def watched(self, step: int) -> dict[str, Tensor | float]:
        """Return weights that change, and what the terms watch."""
        watched: dict[str, Tensor | float] = {}
        for name, loss in self.terms.items():
            found = self.weights[name].watched("weight", step) | loss.watched(step)  # type: ignore[operator]
            watched |= {joined(name, inner): value for inner, value in found.items()}
        return watched


def joined(name: str, inner: str) -> str:
    """Return the name of a term inside a term; a loss that is a single term has no name of its own.

    >>> joined("sts", "contrast"), joined("sts", "")
    ('sts/contrast', 'sts')
    """
    return f"{name}/{inner}" if inner else name
