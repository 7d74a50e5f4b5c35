import json
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lightning_jv5.callbacks import TeacherStudentTable
from lightning_jv5.callbacks.comparison import comparison_table
from lightning_jv5.tasks import View, evaluate
from tests.callbacks.tiny_run import (
    STUDENT_DIM,
    TEACHER_DIM,
    tiny_datamodule,
    tiny_module,
    tiny_task,
    tiny_trainer,
)

DIMS = [16, 32]


def summary(folder: Path) -> dict[str, Any]:
    written: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return written


def directly(encode: Any, model: str, dims: list[int]) -> list[dict[str, Any]]:
    views = [View(dim, precision) for dim in dims for precision in ("float", "binary")]  # type: ignore[arg-type]
    return [
        {
            "model": model,
            "dim": score.view.dim,
            "precision": score.view.precision,
            "value": score.values["mrr@10"],
            "task": score.task,
        }
        for score in evaluate(encode, {"small": tiny_task()}, views, progress=False)
    ]


def rows_of(written: dict[str, Any], model: str) -> list[dict[str, Any]]:
    return [row for row in written["rows"] if row["model"] == model]


def test_summary_holds_what_evaluate_gives(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    module = tiny_module(tmp_path)
    assert module.teacher is not None
    before = directly(module.encode, "student_before", DIMS)
    tiny_trainer(tmp_path, [TeacherStudentTable(DIMS)]).fit(module, datamodule=tiny_datamodule())
    written = summary(tmp_path)
    assert written.keys() == {"metric", "rows", "seconds"}
    assert written["metric"] == "mrr@10"
    assert written["seconds"] > 0
    teacher = directly(module.teacher.encode, "teacher", [16, TEACHER_DIM])  # lacks 32, and 24 is its full dim
    after = directly(module.encode, "student_after", DIMS)
    assert before != [row | {"model": "student_before"} for row in after]
    assert written["rows"] == teacher + before + after
    assert comparison_table(written["rows"], "mrr@10") in capsys.readouterr().out
    assert (tmp_path / "figures" / "summary.step-2.png").is_file()


def test_a_resumed_run_keeps_what_was_measured_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saver = ModelCheckpoint(tmp_path / "checkpoints", every_n_train_steps=1, save_top_k=-1)
    callbacks = [TeacherStudentTable(DIMS), saver]
    module = tiny_module(tmp_path)
    tiny_trainer(tmp_path, callbacks, enable_checkpointing=True).fit(module, datamodule=tiny_datamodule())
    whole = summary(tmp_path)
    [checkpoint] = (tmp_path / "checkpoints").glob("*step=1.ckpt")
    saved = torch.load(checkpoint, weights_only=True)["callbacks"]["TeacherStudentTable{'task': None}"]
    assert saved["rows"] == rows_of(whole, "teacher") + rows_of(whole, "student_before")

    (tmp_path / "summary.json").unlink()
    measured = []
    real = TeacherStudentTable._measure
    monkeypatch.setattr(
        TeacherStudentTable, "_measure", lambda self, *args: (measured.append(args[2]), real(self, *args))[1]
    )
    resumed = tiny_trainer(tmp_path, [TeacherStudentTable(DIMS)])
    resumed.fit(tiny_module(tmp_path), datamodule=tiny_datamodule(), ckpt_path=checkpoint, weights_only=True)
    assert measured == ["student_after"]
    again = summary(tmp_path)
    assert again["rows"] == whole["rows"]
    assert again["seconds"] > saved["seconds"]


def test_a_run_resumed_without_the_state_claims_nothing_about_before(tmp_path: Path) -> None:
    saver = ModelCheckpoint(tmp_path / "checkpoints", every_n_train_steps=1)
    tiny_trainer(tmp_path, [saver], enable_checkpointing=True, max_steps=1).fit(
        tiny_module(tmp_path), datamodule=tiny_datamodule()
    )
    trainer = tiny_trainer(tmp_path, [TeacherStudentTable(DIMS)])
    trainer.fit(tiny_module(tmp_path), datamodule=tiny_datamodule(), ckpt_path=saver.best_model_path)
    assert {row["model"] for row in summary(tmp_path)["rows"]} == {"teacher", "student_after"}


def test_without_a_teacher_its_rows_are_left_out(tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path, [TeacherStudentTable(DIMS)], logger=CSVLogger(tmp_path, name="log"))
    trainer.fit(tiny_module(tmp_path, teacher=False), datamodule=tiny_datamodule())
    assert {row["model"] for row in summary(tmp_path)["rows"]} == {"student_before", "student_after"}


def test_measuring_does_not_change_training(tmp_path: Path) -> None:
    weights = []
    for callbacks in ([], [TeacherStudentTable(DIMS)]):
        module = tiny_module(tmp_path)
        tiny_trainer(tmp_path, callbacks).fit(module, datamodule=tiny_datamodule())
        weights.append(torch.cat([weight.flatten() for weight in module.parameters()]))
    assert torch.equal(*weights)


def test_a_choice_of_models_precisions_and_task(tmp_path: Path) -> None:
    table = TeacherStudentTable([16], precisions=("float",), models=("student_after",), task="other")
    datamodule = tiny_datamodule(val={"small": tiny_task(), "other": tiny_task("recall@1")})
    tiny_trainer(tmp_path, [table]).fit(tiny_module(tmp_path), datamodule=datamodule)
    written = summary(tmp_path)
    assert written["metric"] == "recall@1"
    [row] = written["rows"]
    assert (row["model"], row["dim"], row["precision"], row["task"]) == ("student_after", 16, "float", "other")


def test_tensorboard_has_hyperparameters_and_the_final_measure(tmp_path: Path) -> None:
    logger = TensorBoardLogger(tmp_path, name="log")
    trainer = tiny_trainer(tmp_path, [TeacherStudentTable(DIMS)], logger=logger)
    trainer.fit(tiny_module(tmp_path), datamodule=tiny_datamodule())
    [last] = [
        row["value"]
        for row in rows_of(summary(tmp_path), "student_after")
        if (row["dim"], row["precision"]) == (STUDENT_DIM, "float")
    ]
    events = EventAccumulator(logger.log_dir)
    events.Reload()
    assert "summary" in events.Tags()["images"]
    assert [event.value for event in events.Scalars("hp/small/mrr@10")] == [pytest.approx(last)]
    assert {"_hparams_/experiment", "_hparams_/session_start_info"} <= set(events.PluginTagToContent("hparams"))
    settings = logger.hparams
    assert settings["model.student"] == "Embedder"
    assert settings["model.student.path"] == str(tmp_path / "student")
    assert settings["model.optimizer"] == "AdamW"
    assert settings["model.optimizer.lr"] == 0.05
    assert settings["data.batch_size"] == 4
    assert settings["data.val.small"] == "ReadyRetrieval"
    assert all(isinstance(value, str | int | float | bool) for value in settings.values())


def test_fast_dev_run_does_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trainer = tiny_trainer(tmp_path, [TeacherStudentTable([64])], fast_dev_run=True, max_steps=-1)
    trainer.fit(tiny_module(tmp_path), datamodule=tiny_datamodule())
    assert not (tmp_path / "summary.json").exists()
    assert "teacher  before" not in capsys.readouterr().out


def test_a_run_that_fails_writes_no_summary(tmp_path: Path) -> None:
    class Fail(Callback):
        def on_train_batch_end(self, *_: Any) -> None:
            raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        tiny_trainer(tmp_path, [TeacherStudentTable(DIMS), Fail()]).fit(
            tiny_module(tmp_path), datamodule=tiny_datamodule()
        )
    assert not (tmp_path / "summary.json").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dims": [16, 64]}, rf"got dims \[64\] for a student whose embeddings have {STUDENT_DIM}; need at most"),
        ({"dims": [16], "task": "large"}, r"got the task 'large' and evaluation tasks \['small'\]; need"),
    ],
)
def test_what_does_not_fit_is_refused_before_training(tmp_path: Path, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny_trainer(tmp_path, [TeacherStudentTable(**arguments)]).fit(
            tiny_module(tmp_path), datamodule=tiny_datamodule()
        )


def test_a_run_without_tasks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"evaluation tasks \[\]; need at least one task.* Set data.val"):
        tiny_trainer(tmp_path, [TeacherStudentTable([16])]).fit(
            tiny_module(tmp_path), datamodule=tiny_datamodule(val=None)
        )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dims": []}, r"got dims \[\]; need one or more"),
        (
            {"dims": [8], "precisions": ("int8",)},
            r"Got precisions \['int8'\]; need one or more of \['float', 'binary'\]",
        ),
        ({"dims": [8], "models": ("teacher", "teacher")}, r"Got models \['teacher', 'teacher'\]; .* each once"),
    ],
)
def test_wrong_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TeacherStudentTable(**arguments)
