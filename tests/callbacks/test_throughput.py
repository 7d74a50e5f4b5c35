import csv
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.loggers import CSVLogger

from lightning_jv5.callbacks import Throughput
from lightning_jv5.data.batches import RaggedTexts, TextBatch
from lightning_jv5.models.chunks import padded_tokens
from tests.callbacks.tiny_run import tiny_datamodule, tiny_module, tiny_trainer


class FakeClock:
    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


class FakeTrainer:
    class strategy:  # noqa: N801
        @staticmethod
        def reduce(values: torch.Tensor, reduce_op: str) -> torch.Tensor:
            assert reduce_op == "sum"
            return values * 2  # as two ranks that do the same


class FakeModule:
    device = "cpu"

    def __init__(self) -> None:
        self.logged: dict[str, float] = {}

    def log(self, name: str, value: float, batch_size: int) -> None:
        assert batch_size == 4
        self.logged[name] = value


def batch_of(*lengths: int) -> TextBatch:
    half = len(lengths) // 2
    return TextBatch(
        {
            role: RaggedTexts.from_lists([[1] * length for length in part])
            for role, part in {"query": lengths[:half], "document": lengths[half:]}.items()
        }
    )


def test_rates_count_steps_and_waiting_but_no_validation_checkpoint_or_first_batch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock, module, trainer = FakeClock(), FakeModule(), FakeTrainer()
    monkeypatch.setattr("lightning_jv5.callbacks.throughput.time", clock)
    throughput: Any = Throughput(window=3)
    throughput.on_train_start(trainer, module)

    def step(waiting: float, computing: float) -> None:
        clock.now += waiting
        throughput.on_train_batch_start(trainer, module, None, 0)
        clock.now += computing
        throughput.on_train_batch_end(trainer, module, None, batch_of(3, 3, 5, 1), 0)

    step(waiting=100, computing=100)
    step(waiting=1, computing=2)
    throughput.on_validation_start(trainer, module)
    step(waiting=1000, computing=2)
    throughput.on_save_checkpoint(trainer, module, {})
    assert module.logged == {}
    step(waiting=1000, computing=1)
    assert module.logged == {"train/texts_per_second": 2 * 12 / 6, "train/tokens_per_second": 2 * 36 / 6}
    step(waiting=0, computing=50)
    assert module.logged["train/texts_per_second"] == 4.0  # until the next window is whole


def test_training_logs_rates_and_padding_in_every_row_that_a_logger_sees(tmp_path: Path) -> None:
    seen: list[TextBatch] = []

    class Watch(Callback):
        def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
            seen.append(batch)
            time.sleep(0.01)

    module = tiny_module(tmp_path, teacher=False)
    trainer = tiny_trainer(
        tmp_path, [Watch(), Throughput(window=2)], max_steps=4, logger=CSVLogger(tmp_path, name="log")
    )
    trainer.fit(module, datamodule=tiny_datamodule())
    lengths = RaggedTexts.cat(list(seen[2].texts.values())).lengths
    share = 1 - int(lengths.sum()) / padded_tokens(lengths, module.student.plan(lengths))
    logged = trainer.callback_metrics
    assert float(logged["train/padding_share"]) == pytest.approx(share)
    assert 0 < float(logged["train/texts_per_second"]) < 8 / 0.01
    assert float(logged["train/tokens_per_second"]) > float(logged["train/texts_per_second"])
    with Path(trainer.loggers[0].log_dir, "metrics.csv").open() as file:  # type: ignore[arg-type]
        rows = [row["train/padding_share"] for row in csv.DictReader(file) if row["train/loss"]]
    assert [bool(value) for value in rows] == [False, False, True, True]


def test_a_window_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match=r"Got window 0; need at least 1 batch"):
        Throughput(window=0)
