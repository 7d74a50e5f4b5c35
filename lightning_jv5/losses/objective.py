"""The objective: named, weighted terms. Each takes the same batch, so the objective never asks their kind."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from lightning_jv5.losses.batch import EmbeddingBatch
from lightning_jv5.losses.loss import Loss, TermValue, weighted_sum
from lightning_jv5.rebuildable import Rebuildable

# Names of what the module itself logs while it trains
_TAKEN = {"loss": "the weighted sum", "grad_norm": "the gradient's norm", "lr": "the learning rate"}


@dataclass
class Term(Rebuildable):
    """A loss and its weight (unitless) in an :class:`Objective`."""

    loss: Loss
    weight: float = 1.0


class Objective(Loss):
    """Sum named terms, each logged as ``train/<name>`` before its weight is applied.

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
            if not math.isfinite(term.weight):
                raise ValueError(f"Got weight {term.weight} for the term {name!r}; it must be a finite number.")
        self.weights: Mapping[str, float] = {name: term.weight for name, term in terms.items()}
        self.terms = nn.ModuleDict({name: term.loss for name, term in terms.items()})

    def forward(self, batch: EmbeddingBatch) -> Tensor:
        """Return the weighted sum."""
        return weighted_sum(self.named_terms(batch))

    def named_terms(self, batch: EmbeddingBatch) -> dict[str, TermValue]:
        """Return every term by name; an objective inside an objective keeps both names, as ``outer/inner``."""
        values = {}
        for name, loss in self.terms.items():
            for inner, term in loss.named_terms(batch).items():  # type: ignore[operator]
                key = f"{name}/{inner}" if inner else name
                values[key] = TermValue(term.value, self.weights[name] * term.weight)
        return values
