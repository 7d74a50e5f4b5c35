import json
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lightning_jv5.callbacks import GroupBreakdown
from lightning_jv5.callbacks.group_breakdown import draw_groups, groups_table
from lightning_jv5.metrics import StreamingMetric, StreamingRetrieval
from tests.callbacks.tiny_run import tiny_datamodule, tiny_module, tiny_trainer

GROUPS = {"en-de": {"mrr@10": 0.5, "queries": 3.0}, "a/b | c": {"mrr@10": 0.25}, "no main": {"queries": 2.0}}


@pytest.fixture
def grouped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StreamingRetrieval, "breakdown", lambda self: GROUPS)


def test_groups_are_logged_drawn_and_written_down(tmp_path: Path, grouped: None) -> None:
    logger = TensorBoardLogger(tmp_path, name="log")
    trainer = tiny_trainer(tmp_path, [GroupBreakdown()], logger=logger)
    trainer.validate(tiny_module(tmp_path, teacher=False), datamodule=tiny_datamodule(), verbose=False)
    logged = {name: float(value) for name, value in trainer.callback_metrics.items() if "/group/" in name}
    assert logged == {"val/small/mrr@10/group/en-de": 0.5, "val/small/mrr@10/group/a_b___c": 0.25}
    data = json.loads((tmp_path / "figures" / "val.groups.small.step-0.json").read_text())
    assert data == {"step": 0, "metric": "mrr@10", "groups": GROUPS}
    table = (tmp_path / "texts" / "val.groups.small.step-0.md").read_text()
    assert table == groups_table(GROUPS, "mrr@10") + "\n"
    events = EventAccumulator(logger.log_dir)
    events.Reload()
    assert events.Tags()["images"] == ["val/groups/small"]


def test_a_task_without_groups_shows_nothing(tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path, [GroupBreakdown()])
    trainer.validate(tiny_module(tmp_path, teacher=False), datamodule=tiny_datamodule(), verbose=False)
    assert not [name for name in trainer.callback_metrics if "/group/" in name]
    assert not (tmp_path / "figures").exists()
    assert StreamingMetric.breakdown(Any) == {}  # type: ignore[arg-type]


def test_the_table_starts_with_the_worst_and_cannot_be_broken() -> None:
    assert groups_table(GROUPS, "mrr@10").splitlines()[2:] == [
        r"| a/b \| c | 0.2500 | - |",
        "| en-de | 0.5000 | 3 |",
        "| no main | - | 2 |",
    ]


def test_of_many_groups_the_worst_and_the_best_are_drawn() -> None:
    values = {f"group {number:03}": number / 100 for number in range(100)}
    axes = draw_groups(values, title="small", metric="mrr@10", most_bars=40).axes[0]
    names = [tick.get_text() for tick in axes.get_yticklabels()]
    assert names == [
        *(f"group {number:03}" for number in range(20)),
        "60 more",
        *(f"group {number:03}" for number in range(80, 100)),
    ]
    assert [bar.get_width() for bar in axes.patches] == [
        value for value in values.values() if not 0.195 < value < 0.795
    ]
    assert "mean of 100 groups: 0.495" in [text.get_text() for text in axes.get_legend().get_texts()]


def test_fewer_than_two_bars_are_refused() -> None:
    with pytest.raises(ValueError, match="Got most_bars 1; need at least 2"):
        GroupBreakdown(most_bars=1)
