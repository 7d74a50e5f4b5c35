"""How fast training goes, and how much of what is computed is padding."""

import time
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_jv5.data.batches import RaggedTexts, TextBatch


class Throughput(Callback):
    """Log ``train/texts_per_second``, ``train/tokens_per_second`` and ``train/padding_share``, over all ranks.

    Time is that of the training steps and of waiting for their data; validation, checkpoints and the first batch (which
    loads and compiles things) are left out. Texts and tokens are the student's, without padding; the padding share is
    that of the tokens that its chunks compute, looked at in the last batch of each window.

    Args:
        window: Batches to average over. The values of the last whole window are logged with every later batch.

    Raises:
        ValueError: If ``window`` is below 1.

    >>> Throughput(window=50).window
    50
    """

    def __init__(self, window: int = 20) -> None:
        if window < 1:
            raise ValueError(f"Got window {window}; need at least 1 batch to average over. Raise it.")
        self.window = window
        self._forget()

    def _forget(self) -> None:
        self._batches, self._texts, self._tokens, self._seconds = -1, 0, 0, 0.0
        self._latest: dict[str, float] = {}
        self._mark: float | None = None  # None where the time since the last batch was not training's

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to measure."""
        self._forget()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave validation out of the time."""
        self._mark = None

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Leave checkpoints out of the time."""
        self._mark = None

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Count the time since the last batch where it was spent waiting for data."""
        now = time.perf_counter()
        if self._mark is not None:
            self._seconds += now - self._mark
        self._mark = now

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: TextBatch, batch_idx: int
    ) -> None:
        """Count the batch, and log."""
        now = time.perf_counter()
        if self._mark is not None:
            self._seconds += now - self._mark
        self._mark = now
        self._batches += 1
        if self._batches == 0:
            self._seconds = 0.0
            return
        self._texts += batch.text_count
        self._tokens += sum(texts.token_ids.numel() for texts in batch.texts.values())
        if self._batches == self.window:
            self._latest = self._measure(trainer, pl_module, batch)
            self._batches, self._texts, self._tokens, self._seconds = 0, 0, 0, 0.0
        # With every batch: the Trainer passes on only what is logged in a step that its loggers look at
        for name, value in self._latest.items():
            pl_module.log(f"train/{name}", value, batch_size=batch.text_count)

    def _measure(self, trainer: Trainer, pl_module: LightningModule, batch: TextBatch) -> dict[str, float]:
        computed, kept = _computed_and_kept_tokens(pl_module, batch)
        rates = [self._texts / self._seconds, self._tokens / self._seconds]
        local = torch.tensor([*rates, computed, kept], dtype=torch.float32, device=pl_module.device)
        texts, tokens, computed, kept = trainer.strategy.reduce(local, reduce_op="sum").tolist()
        measured = {"texts_per_second": texts, "tokens_per_second": tokens}
        return measured | ({"padding_share": 1 - kept / computed} if computed else {})


def _computed_and_kept_tokens(pl_module: LightningModule, batch: TextBatch) -> tuple[int, int]:
    student: Any = getattr(pl_module, "student", None)
    if not hasattr(student, "computed_tokens"):
        return 0, 0
    lengths = RaggedTexts.cat(list(batch.texts.values())).lengths.cpu()
    return student.computed_tokens(lengths), int(lengths.sum())
