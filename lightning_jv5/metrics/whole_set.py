"""Measures that need all embeddings of a task at once, such as a correlation or a clustering."""

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_jv5.metrics.streaming import StreamingMetric
from lightning_jv5.metrics.views import View


class WholeSetMetric(StreamingMetric):
    """Keeps what the view cuts of every text that arrives, and scores it once all are there.

    Ranks divide the texts in any way; a row that arrives twice counts once. Every rank calls ``update`` at least once,
    if without texts. Merging takes the memory of all embeddings, ``4 * text_count * dim`` bytes, on every rank.

    Args:
        text_count: Number of texts.
        measures: Names of what :meth:`score` returns.
        view: How embeddings are read; by default they are taken as they are.

    >>> class MeanLength(WholeSetMetric):
    ...     def score(self, embeddings):
    ...         return {"length": float(embeddings.norm(dim=1).mean())}
    >>> metric = MeanLength(2, ["length"])
    >>> metric.update("document", torch.tensor([[3.0, 4.0]]), torch.tensor([1]))
    >>> metric.compute(), metric.is_complete()
    ({'length': tensor(nan)}, False)
    >>> metric.update("document", torch.tensor([[0.0, 1.0]]), torch.tensor([0]))
    >>> metric.compute(), metric.is_complete()
    ({'length': tensor(3.)}, True)
    """

    embeddings: list[Tensor] | Tensor
    rows: list[Tensor] | Tensor
    groups: dict[str, dict[str, float]]

    def __init__(self, text_count: int, measures: Sequence[str], view: View | None = None) -> None:
        super().__init__(view)
        self.text_count, self.measures = text_count, tuple(measures)
        self.add_state("embeddings", [], dist_reduce_fx="cat")
        self.add_state("rows", [], dist_reduce_fx="cat")
        self._texts_seen = 0
        self.groups = {}

    @abstractmethod
    def score(self, embeddings: Tensor) -> dict[str, float]:
        """Return each measure, from what was cut of all texts: float32 on the CPU, shape ``(text_count, dim)``.

        :meth:`document` says how these texts are stored, :meth:`query` how they search. A metric that knows groups
        leaves their measures in :attr:`groups`.
        """

    def update(self, role: str, embeddings: Tensor, rows: Tensor) -> None:
        """Keep the embeddings of these texts.

        Args:
            role: Whose prompt they were encoded with; it makes no difference here.
            embeddings: Embeddings, shape ``(texts, dim)``.
            rows: Row of each text among the task's; int64, shape ``(texts,)``.

        Raises:
            ValueError: If the shapes differ, there is no such row, or a number is not finite.
        """
        if embeddings.ndim != 2 or rows.shape != embeddings.shape[:1]:
            raise ValueError(
                f"Got embeddings {tuple(embeddings.shape)} and rows {tuple(rows.shape)}; need (texts, dim) and "
                "(texts,). Pool token embeddings first, and pass the row of each text."
            )
        kept, kept_rows = self.embeddings, self.rows
        assert isinstance(kept, list)
        assert isinstance(kept_rows, list)
        if len(rows) and rows.device.type == "cpu" and (rows.min() < 0 or rows.max() >= self.text_count):
            raise ValueError(
                f"Got rows {rows.min()} to {rows.max()}; need 0 to {self.text_count - 1}. "
                "Pass positions among the task's texts."
            )
        cut = self.cut(embeddings)
        if kept and cut.shape[1] != kept[0].shape[1]:
            raise ValueError(
                f"Got embeddings of {cut.shape[1]} coordinates after others of {kept[0].shape[1]}; need the "
                "same. Encode every text with the same model and view."
            )
        self.note_bad_texts(cut)
        kept.append(cut.clone() if cut.data_ptr() == embeddings.data_ptr() else cut)
        kept_rows.append(rows.detach().to(cut.device, torch.int64, copy=True))

    def compute(self) -> dict[str, Tensor]:
        """Return each measure by its name, as a scalar; NaN while texts are missing.

        Raises:
            ValueError: If an embedding was not finite.
        """
        self.refuse_bad_texts()
        rows, embeddings = (_joined(state).cpu() for state in (self.rows, self.embeddings))
        first = torch.full((self.text_count,), len(rows))
        first.scatter_reduce_(0, rows, torch.arange(len(rows)), "amin")
        self._texts_seen = int((first < len(rows)).sum())
        self.groups = {}
        if self._texts_seen < self.text_count:
            values = dict.fromkeys(self.measures, float("nan"))
        else:
            values = self.score(embeddings[first])
        device = self.bad_texts.device
        return {name: torch.tensor(value, dtype=torch.float32, device=device) for name, value in values.items()}

    @property
    def texts_seen(self) -> int:
        """Number of different texts that arrived on any rank. Merges over ranks, so every rank asks."""
        self.compute()
        return self._texts_seen

    def breakdown(self) -> dict[str, dict[str, float]]:
        """Return the measures by group, if the metric knows groups and all texts arrived.

        Merges over ranks, so every rank asks.
        """
        self.compute()
        return self.groups

    def is_complete(self) -> bool:
        """Whether all texts arrived on some rank. Merges over ranks, so every rank asks."""
        return self.texts_seen == self.text_count


def _joined(state: list[Tensor] | Tensor) -> Tensor:
    """Concatenate what arrived on this rank; after ranks are merged it is one tensor already."""
    if isinstance(state, Tensor):
        return state
    return torch.cat(state) if state else torch.zeros(0, dtype=torch.int64)
