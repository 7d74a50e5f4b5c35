"""Matryoshka: one loss at several truncations of the embeddings, so that the first coordinates carry most."""

import random
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
        dims_per_step: Only so many dims in each optimizer step, the largest always and the others drawn at random;
            those drawn weigh more, so that the expectation is the sum over all (1 is the largest alone). By default
            all.
        seed: With the step, says which dims are drawn: every rank, and a resumed run, draws the same.

    Raises:
        ValueError: If there are no dims, one is repeated or not positive, the weights do not match them, or
            ``dims_per_step`` is not between 1 and their number.

    >>> import torch
    >>> from lightning_jv5.losses import EmbeddingBatch, EmbeddingDistillation
    >>> from lightning_jv5.models import Projection
    >>> loss = Matryoshka(EmbeddingDistillation(Projection(4, 4), roles=["query"]), dims=[4, 2])
    >>> z = torch.tensor([[0.6, 0.0, 0.8, 0.0]])
    >>> loss(EmbeddingBatch(z, query_teacher=z)).detach()  # cosines 1 and 0.6: (0 + 0.4) / 2
    tensor(0.2000)
    """

    def __init__(
        self,
        loss: Loss,
        dims: Sequence[int],
        weights: Sequence[float] | None = None,
        *,
        dims_per_step: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not dims or min(dims) < 1 or len(set(dims)) < len(dims):
            raise ValueError(f"Got Matryoshka dims {list(dims)}; need one or more positive numbers, each once.")
        if weights is not None and len(weights) != len(dims):
            raise ValueError(f"Got {len(weights)} weights for {len(dims)} Matryoshka dims; give one for each dim.")
        if dims_per_step is not None and not 1 <= dims_per_step <= len(dims):
            raise ValueError(f"Got dims_per_step {dims_per_step} of {len(dims)} dims; need 1 to {len(dims)}.")
        self.loss = loss
        self.dims = tuple(dims)
        self.weights = tuple(weights) if weights is not None else (1 / len(dims),) * len(dims)
        self.dims_per_step = len(dims) if dims_per_step is None else dims_per_step
        self.seed = seed

    def forward(self, batch: EmbeddingBatch) -> Tensor:
        """Return the weighted sum over the dims."""
        return weighted_sum(self.named_terms(batch))

    def named_terms(self, batch: EmbeddingBatch) -> dict[str, TermValue]:
        """Return each term of the loss inside, summed over the dims; its weight is as it was."""
        return self.loss.terms_at_dims(batch, *self.drawn(batch.step))

    def drawn(self, step: int) -> tuple[list[int], list[float]]:
        """Return the dims of an optimizer step and their weights.

        >>> Matryoshka(Loss(), dims=[64, 32, 16], weights=[1.0, 1.0, 1.0], dims_per_step=2).drawn(step=7)
        ([64, 32], [1.0, 2.0])
        """
        largest, *others = sorted(zip(self.dims, self.weights, strict=True), reverse=True)
        count = self.dims_per_step - 1
        kept = random.Random(f"{self.seed} {step}").sample(others, count)
        more = len(others) / count if count else 1.0
        chosen = [largest, *sorted(((dim, weight * more) for dim, weight in kept), reverse=True)]
        return [dim for dim, _ in chosen], [weight for _, weight in chosen]

    def watched(self, step: int) -> dict[str, Tensor | float]:
        """Return what the loss inside watches."""
        return self.loss.watched(step)
