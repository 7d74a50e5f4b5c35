"""Tasks of every kind in one pass of a Trainer, with every callback that looks at them."""

import json
from pathlib import Path

import pytest

from lightning_jv5.callbacks import BinaryQuantization, MatryoshkaEvaluation, RankedExamples, TeacherStudentTable
from lightning_jv5.tasks import View, evaluate
from tests.tasks.labelled_texts import one_of_each
from tests.tiny_data import quiet_trainer, tiny_data, tiny_module, tiny_task

MAIN = {
    "small": "ndcg@10",
    "sts": "spearman",
    "duplicates": "ap",
    "translations": "f1",
    "candidates": "map@1000",
    "topics": "v_measure",
    "intents": "accuracy",
}


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LIGHTNING_JV5_CACHE", str(tmp_path / "cache"))


def test_fit_logs_shows_and_compares_tasks_of_every_kind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tasks = {"small": tiny_task(), **one_of_each()}
    callbacks = [
        MatryoshkaEvaluation([8, 16]),
        BinaryQuantization(),
        RankedExamples(),
        TeacherStudentTable([16], models=("student_before", "student_after")),
    ]
    module = tiny_module(tmp_path)
    trainer = quiet_trainer(tmp_path, max_epochs=1, callbacks=callbacks)
    trainer.fit(module, datamodule=tiny_data(val=tasks))
    logged = {name: value.item() for name, value in trainer.callback_metrics.items()}
    views = [View(), View(8), View(16), View(precision="binary")]
    for score in evaluate(module.encode, tasks, views, progress=False):
        for measure, value in score.values.items():
            name = "/".join(filter(None, ("val", score.task, measure, score.view.name)))
            assert logged[name] == pytest.approx(value, abs=1e-6)
    for task, measure in MAIN.items():
        drop = logged[f"val/{task}/{measure}"] - logged[f"val/{task}/{measure}/binary"]
        assert logged[f"val/{task}/{measure}/binary_drop"] == pytest.approx(drop, abs=1e-6)
    shown = [path.name for path in (tmp_path / "texts").glob("*.examples.*json")]
    assert shown
    assert all(name.startswith(("val.small.", "val.candidates.")) for name in shown)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert {row["task"] for row in summary["rows"]} == set(MAIN)
    printed = capsys.readouterr().out
    assert all(f"\n{task}: {measure}\n" in printed for task, measure in MAIN.items())


def test_validate_and_test_score_them_and_a_part_is_not_scored(tmp_path: Path) -> None:
    module, trainer = tiny_module(tmp_path), quiet_trainer(tmp_path)
    trainer.validate(module, datamodule=tiny_data(val=one_of_each()), verbose=False)
    validated = {name: float(value) for name, value in trainer.callback_metrics.items()}
    trainer.test(module, datamodule=tiny_data(test=one_of_each()), verbose=False)
    tested = {name: float(value) for name, value in trainer.callback_metrics.items()}
    assert {f"val/{name.removeprefix('test/')}": value for name, value in tested.items()} == validated
    assert {"val/sts/pearson", "val/topics/v_measure_std", "val/intents/knn_accuracy"} <= validated.keys()
    cut = quiet_trainer(tmp_path, limit_val_batches=1)
    cut.validate(module, datamodule=tiny_data(val=one_of_each()), verbose=False)
    assert cut.callback_metrics == {}
