"""One loss for batches with scores, another for those without: a run that draws on both kinds of data."""

from collections.abc import Callable, Sequence

from torch import Tensor

from lightning_jv5.losses.batch import EmbeddingBatch
from lightning_jv5.losses.loss import Loss, TermValue, tied, weighted_sum
from lightning_jv5.losses.objective import joined


class ByScore(Loss):
    """``scored`` where the batch has scores, else ``unscored``: arXiv:2602.15547 eq. 6.

    Logged as ``train/scored`` and ``train/unscored``, with the names of their own terms behind. The parameters of the
    loss that a batch does not use are part of its graph all the same, with a gradient of zero: DDP then needs no
    ``find_unused_parameters``, whatever kinds of batches follow one another.

    Args:
        scored: The loss of scored pairs, such as :class:`~lightning_jv5.losses.CoSENT`.
        unscored: The loss of pairs without scores.

    >>> import torch
    >>> from lightning_jv5.losses import CoSENT, EmbeddingBatch, InfoNCE
    >>> loss = ByScore(scored=CoSENT(), unscored=InfoNCE())
    >>> list(loss.named_terms(EmbeddingBatch(torch.eye(2), torch.eye(2), score=torch.tensor([1.0, 0.0]))))
    ['scored']
    """

    def __init__(self, scored: Loss, unscored: Loss) -> None:
        super().__init__()
        self.scored, self.unscored = scored, unscored

    def forward(self, batch: EmbeddingBatch) -> Tensor:
        """Return the loss that fits the batch."""
        return weighted_sum(self.named_terms(batch))

    def named_terms(self, batch: EmbeddingBatch) -> dict[str, TermValue]:
        """Return the terms of the loss that fits the batch."""
        return self._chosen(batch, lambda loss: loss.named_terms(batch))

    def terms_at_dims(
        self, batch: EmbeddingBatch, dims: Sequence[int], weights: Sequence[float]
    ) -> dict[str, TermValue]:
        """Return the same over truncated embeddings."""
        return self._chosen(batch, lambda loss: loss.terms_at_dims(batch, dims, weights))

    def _chosen(self, batch: EmbeddingBatch, terms_of: Callable[[Loss], dict[str, TermValue]]) -> dict[str, TermValue]:
        name, loss = ("unscored", self.unscored) if batch.score is None else ("scored", self.scored)
        terms = {joined(name, inner): term for inner, term in terms_of(loss).items()}
        return tied(terms, self.parameters())

    def watched(self, step: int) -> dict[str, Tensor | float]:
        """Return what both losses watch."""
        found = {"scored": self.scored.watched(step), "unscored": self.unscored.watched(step)}
        return {joined(name, inner): value for name, watched in found.items() for inner, value in watched.items()}
