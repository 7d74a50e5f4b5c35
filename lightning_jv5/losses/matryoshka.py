"""Matryoshka: one loss at several truncations of the embeddings, so that the first coordinates carry most."""

from collections.abc import Sequence

from torch import Tensor

from lightning_jv5.losses.batch import EmbeddingBatch
from lightning_jv5.losses.loss import Loss, TermValue, weighted_sum


class Matryoshka(Loss):
    """Sum a loss, or a whole objective, over truncated embeddings: Kusupati et al. 2022, https://arxiv.org/abs/2205.13147.

    Args:
        loss: What is computed at every dim; an :class:`~lightning_jv5.losses.Objective` keeps the names of its terms.
        dims: Numbers of leading coordinates to keep, each once.
        weights: Weight of each dim; by default ``1 / len(dims)`` each.

    Raises:
        ValueError: If there are no dims, one is repeated or not positive, or the weights do not match them.

    >>> import torch
    >>> from lightning_jv5.losses import EmbeddingBatch, EmbeddingDistillation
    >>> from lightning_jv5.models import Projection
    >>> loss = Matryoshka(EmbeddingDistillation(Projection(4, 4), roles=["query"]), dims=[4, 2])
    >>> z = torch.tensor([[0.6, 0.0, 0.8, 0.0]])
    >>> loss(EmbeddingBatch(z, query_teacher=z)).detach()  # cosines 1 and 0.6: (0 + 0.4) / 2
    tensor(0.2000)
    """

    def __init__(self, loss: Loss, dims: Sequence[int], weights: Sequence[float] | None = None) -> None:
        super().__init__()
        if not dims or min(dims) < 1 or len(set(dims)) < len(dims):
            raise ValueError(f"Got Matryoshka dims {list(dims)}; need one or more positive numbers, each once.")
        if weights is not None and len(weights) != len(dims):
            raise ValueError(f"Got {len(weights)} weights for {len(dims)} Matryoshka dims; give one for each dim.")
        self.loss = loss
        self.dims = tuple(dims)
        self.weights = tuple(weights) if weights is not None else (1 / len(dims),) * len(dims)

    def forward(self, batch: EmbeddingBatch) -> Tensor:
        """Return the weighted sum over the dims."""
        return weighted_sum(self.named_terms(batch))

    def named_terms(self, batch: EmbeddingBatch) -> dict[str, TermValue]:
        """Return each term of the loss inside, summed over the dims; its weight is as it was."""
        at_dims = [self.loss.named_terms(batch.truncate(dim)) for dim in self.dims]
        return {
            name: TermValue(
                sum(
                    (weight * terms[name].value for weight, terms in zip(self.weights, at_dims, strict=True)),
                    start=first.value.new_zeros(()),
                ),
                first.weight,
            )
            for name, first in at_dims[0].items()
        }
