"""What every metric of an evaluation task has in common: embeddings arrive batch by batch, from any rank."""

from abc import ABC, abstractmethod

from torch import Tensor
from torchmetrics import Metric


class StreamingMetric(Metric, ABC):
    """A metric that is fed embeddings as they are made, and knows whether it has seen all that it needs.

    ``update`` never communicates. :meth:`compute` and :meth:`is_complete` merge over ranks, so every rank calls them.
    """

    full_state_update = True

    @abstractmethod
    def update(self, role: str, embeddings: Tensor, rows: Tensor) -> None:
        """Take the embeddings, shape ``(texts, dim)``, of these rows, shape ``(texts,)``, of the column ``role``."""

    @abstractmethod
    def compute(self) -> dict[str, Tensor]:
        """Return the measures by name, each a scalar."""

    @abstractmethod
    def is_complete(self) -> bool:
        """Whether every text of the task arrived on some rank. A partial score must not be compared with others."""
