"""The contract of every loss: an :class:`EmbeddingBatch` in, a scalar out."""

from collections.abc import Iterable, Sequence
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

    def terms_at_dims(
        self, batch: EmbeddingBatch, dims: Sequence[int], weights: Sequence[float]
    ) -> dict[str, TermValue]:
        """Return :meth:`named_terms` summed over truncated embeddings: what :class:`Matryoshka` asks for.

        Override it where all dims together can be had for less than one after the other.

        Args:
            batch: Whole embeddings.
            dims: Numbers of leading coordinates to keep.
            weights: Weight of each dim.
        """
        at_dims = [self.named_terms(batch.truncate(dim)) for dim in dims]
        return {
            name: TermValue(
                sum(
                    (weight * terms[name].value for weight, terms in zip(weights, at_dims, strict=True)),
                    start=first.value.new_zeros(()),
                ),
                first.weight,
            )
            for name, first in at_dims[0].items()
        }

    def watched(self, step: int) -> dict[str, Tensor | float]:
        """Return what else is worth a curve in the logs, by name: a temperature that changes, say."""
        return {}


def weighted_sum(terms: dict[str, TermValue]) -> Tensor:
    """Return the sum of ``weight * value`` over the terms."""
    return sum(
        (term.weight * term.value for term in terms.values()), start=next(iter(terms.values())).value.new_zeros(())
    )


def tied(terms: dict[str, TermValue], parameters: Iterable[nn.Parameter]) -> dict[str, TermValue]:
    """Return the terms with every trainable parameter in their graph, as DDP demands of each step.

    The first term gets the sum of no elements of each: zero, with a gradient of zero, whatever the values are.
    """
    unused = [parameter.flatten()[:0].sum() for parameter in parameters if parameter.requires_grad]
    name, (value, weight) = next(iter(terms.items()))
    nothing = sum((zero.to(value.device, value.dtype) for zero in unused), start=value.new_zeros(()))
    return terms | {name: TermValue(value + nothing, weight)}
