"""What each data set of a mixture contributes: its losses, and how often it is drawn."""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from lightning_jv5.data.batches import ONLY_SET, TextBatch


class DataSetLosses(Callback):
    """Log, for each data set, the mean of its losses and its share of the batches.

    ``sets/<name>/loss`` and ``sets/<name>/<term>`` are means over the set's batches since the last time that the
    Trainer logged, so that a set that is drawn rarely is seen too; ``sets/<name>/batches`` and ``sets/<name>/share``
    count from the beginning of the run; ``sets/<name>/cut_share`` is the share of texts longer than the limit.
    Every :class:`~lightning_jv5.EmbeddingModule` has this callback; it logs nothing where ``data.train`` is a single
    source. Under several processes the losses are those of the first.
    """

    def __init__(self) -> None:
        self._seen: dict[str, _SeenSet] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to average."""
        self._seen = {}

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: TextBatch, batch_idx: int
    ) -> None:
        """Add the batch to its set's means, and log them where the Trainer logs."""
        if batch.dataset == ONLY_SET:  # its losses are the run's
            return
        terms: dict[str, Tensor] = getattr(pl_module, "last_terms", {})
        self._seen.setdefault(batch.dataset, _SeenSet()).add(batch, terms)
        # What is logged in a step that the Trainer's loggers do not look at is lost: there is no public way to ask
        if trainer._logger_connector.should_update_logs and not trainer.fit_loop._should_accumulate():
            self._log(pl_module, batch.text_count)

    def _log(self, pl_module: LightningModule, texts: int) -> None:
        for name, seen in self._seen.items():
            for measure, value in seen.means().items():
                pl_module.log(f"sets/{name}/{measure}", value, batch_size=texts)
        self._seen = {}


class _SeenSet:
    """Sums over the batches of a set."""

    def __init__(self) -> None:
        self.batches = self.texts = self.cut = 0
        self.sums: dict[str, Tensor] = {}
        self.drawn: tuple[int, int] = (0, 1)

    def add(self, batch: TextBatch, terms: dict[str, Tensor]) -> None:
        self.batches += 1
        self.texts += batch.text_count
        self.cut += batch.cut_texts
        self.drawn = (batch.dataset_batch + 1, batch.step + 1)
        for name, value in terms.items():
            self.sums[name] = self.sums[name] + value if name in self.sums else value

    def means(self) -> dict[str, Tensor | float]:
        drawn, of = self.drawn
        counts = {"batches": float(drawn), "share": drawn / of, "cut_share": self.cut / max(1, self.texts)}
        return {**{name: total / self.batches for name, total in self.sums.items()}, **counts}
