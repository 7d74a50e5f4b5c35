from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Callback
from lightning.pytorch.loggers import CSVLogger

from lightning_jv5.data import TrainingSet
from tests.tiny_data import TinyPairs, TinyVectors, quiet_trainer, tiny_data, tiny_module, tiny_objective


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIGHTNING_JV5_CACHE", str(tmp_path / "cache"))


class Notes(Callback):
    """Keep the set and the loss of every batch."""

    def __init__(self) -> None:
        self.losses: list[tuple[str, float]] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.losses.append((batch.dataset, float(outputs["loss"])))


def logged(folder: Path, data: Any, accumulate: int = 1) -> tuple[list[tuple[str, float]], list[dict[str, str]]]:
    import csv

    notes = Notes()
    trainer = quiet_trainer(
        folder,
        max_steps=8 // accumulate,
        limit_val_batches=0,
        log_every_n_steps=4 // accumulate,
        accumulate_grad_batches=accumulate,
        logger=CSVLogger(folder, name="", version=""),
        callbacks=[notes],
    )
    trainer.fit(tiny_module(folder), data)
    with (folder / "metrics.csv").open() as file:
        return notes.losses, list(csv.DictReader(file))


def mixture() -> dict[str, TrainingSet]:
    return {"large": TrainingSet(TinyVectors(), weight=3), "small": TrainingSet(TinyVectors(8), batch_size=2, weight=1)}


@pytest.mark.parametrize("accumulate", [1, 2])
def test_losses_of_each_set_are_means_since_the_last_log(tmp_path: Path, accumulate: int) -> None:
    losses, rows = logged(tmp_path, tiny_data(train=mixture()), accumulate)
    assert {name for name, _ in losses} == {"large", "small"}
    scale = accumulate  # Lightning divides what it returns by the batches that are accumulated
    for window, row in zip((losses[:4], losses[4:]), rows, strict=True):
        seen = defaultdict(list)
        for name, loss in window:
            seen[name].append(scale * loss)
        for name in ("large", "small"):
            found = row.get(f"sets/{name}/loss") or None
            expected = pytest.approx(sum(seen[name]) / len(seen[name]), rel=1e-5) if name in seen else None
            assert (found and float(found)) == expected
            assert (found is None) == (not row.get(f"sets/{name}/distill"))


def test_the_share_that_was_drawn_counts_from_the_beginning(tmp_path: Path) -> None:
    losses, rows = logged(tmp_path, tiny_data(train=mixture()))
    drawn = [name for name, _ in losses]
    found = {name: [row for row in rows if row[f"sets/{name}/batches"]][-1] for name in ("large", "small")}
    for name, row in found.items():
        last = max(step for step, of in enumerate(drawn[: 4 * (rows.index(row) + 1)]) if of == name)
        count = drawn[: last + 1].count(name)
        assert float(row[f"sets/{name}/batches"]) == count
        assert float(row[f"sets/{name}/share"]) == pytest.approx(count / (last + 1))
        assert float(row[f"sets/{name}/cut_share"]) == 0


def test_a_single_source_logs_nothing_of_its_own(tmp_path: Path) -> None:
    _, rows = logged(tmp_path, tiny_data())
    assert rows
    assert not [name for row in rows for name in row if name.startswith("sets/")]


def test_the_share_of_cut_texts_is_logged(tmp_path: Path) -> None:
    _, rows = logged(tmp_path, tiny_data(train={"pairs": TrainingSet(TinyVectors(), max_length=4, batch_size=12)}))
    # every batch is all rows; the prompt has two tokens and the end one, which leaves one word
    texts = [row[column] for row in TinyPairs().load() for column in ("query", "document")]
    expected = sum(len(text.split()) > 1 for text in texts) / len(texts)
    assert 0 < expected < 1
    assert float(rows[-1]["sets/pairs/cut_share"]) == pytest.approx(expected)


def test_the_objectives_terms_are_logged_for_each_set(tmp_path: Path) -> None:
    assert list(tiny_objective().terms) == ["distill"]
    _, rows = logged(tmp_path, tiny_data(train=mixture()))
    assert any(row.get("sets/large/distill") for row in rows)
