"""What every metric of an evaluation task has in common: embeddings arrive batch by batch, from any rank."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor
from torchmetrics import Metric

from lightning_jv5.metrics.views import View


class StreamingMetric(Metric, ABC):
    """A metric that is fed embeddings as they are made, and knows whether it has seen all that it needs.

    ``update`` never communicates. :meth:`compute` and :meth:`is_complete` merge over ranks, so every rank calls them.

    On the CPU bad values are reported by ``update``; on a GPU by ``compute``, because looking at them earlier would
    stall the device in every batch.

    Args:
        view: How embeddings are read; by default they are taken as they are.
    """

    full_state_update = True
    bad_texts: Tensor

    def __init__(self, view: View | None = None) -> None:
        super().__init__()
        self.view = view
        self.add_state("bad_texts", torch.tensor(0), dist_reduce_fx="sum")

    def note_bad_texts(self, embeddings: Tensor) -> None:
        """Count the embeddings that are not finite; ``update`` calls it.

        Raises:
            ValueError: If there are any, on the CPU.
        """
        on_cpu = embeddings.device.type == "cpu"
        if on_cpu and embeddings.sum().isfinite():  # none with a NaN is; asking each takes ten times
            return
        self.bad_texts += (~embeddings.isfinite()).any(1).sum()
        if on_cpu:
            self.refuse_bad_texts()

    def cut(self, embeddings: Tensor) -> Tensor:
        """Return what the view keeps of whole embeddings, in float32 and on the metric's device."""
        embeddings = embeddings.detach().to(self.bad_texts.device)
        return embeddings.float() if self.view is None else self.view.cut(embeddings)

    def query(self, cut: Tensor) -> Tensor:
        """Return what searches, of what was cut."""
        return cut if self.view is None else self.view.query(cut)

    def document(self, cut: Tensor) -> Tensor:
        """Return what is stored, of what was cut."""
        return cut if self.view is None else self.view.document(cut)

    def refuse_bad_texts(self) -> None:
        """Refuse a score of embeddings that are not finite; ``compute`` calls it.

        Raises:
            ValueError: If there were any.
        """
        if self.bad_texts:
            raise ValueError(
                f"Got NaN or infinite embeddings of {int(self.bad_texts)} texts; need finite numbers. "
                "Check the model's weights (did training diverge?) and its precision."
            )

    @abstractmethod
    def update(self, role: str, embeddings: Tensor, rows: Tensor) -> None:
        """Take the whole embeddings, shape ``(texts, dim)``, of rows, shape ``(texts,)``, of the column ``role``."""

    @abstractmethod
    def compute(self) -> dict[str, Tensor]:
        """Return the measures by name, each a scalar."""

    def breakdown(self) -> dict[str, dict[str, float]]:
        """Return scores by group, each by measure; merges over ranks, so every rank calls it. By default none."""
        return {}

    @abstractmethod
    def is_complete(self) -> bool:
        """Whether every text of the task arrived on some rank. A partial score must not be compared with others."""
