"""The contract of every loss: an :class:`EmbeddingBatch` in, a scalar out."""

from typing import NamedTuple

from torch import Tensor, nn

from lightning_jv5.losses.batch import EmbeddingBatch
from lightning_jv5.rebuildable import Rebuildable


class TermValue(NamedTuple):
    """One term of a loss in one step: the total is the sum of ``weight * value``."""

    value: Tensor
    weight: float


class Loss(Rebuildable, nn.Module):
    """Base of all losses. Write ``forward``; everything else follows from it."""

    def forward(self, batch: EmbeddingBatch) -> Tensor:
        """Return the loss of the batch as a scalar that has a gradient."""
        raise NotImplementedError(f"{type(self).__name__} must define forward(batch: EmbeddingBatch) -> Tensor.")

    def named_terms(self, batch: EmbeddingBatch) -> dict[str, TermValue]:
        """Return what ``forward`` sums, by name: a plain loss is one term without a name."""
        return {"": TermValue(self(batch), 1.0)}


def weighted_sum(terms: dict[str, TermValue]) -> Tensor:
    """Return the sum of ``weight * value`` over the terms."""
    return sum(
        (term.weight * term.value for term in terms.values()), start=next(iter(terms.values())).value.new_zeros(())
    )
