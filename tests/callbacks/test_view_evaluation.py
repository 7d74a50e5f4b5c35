from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import LightningModule
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lightning_jv5 import EmbeddingModule
from lightning_jv5.callbacks import BinaryQuantization, MatryoshkaEvaluation, RankedExamples, ViewEvaluation
from lightning_jv5.callbacks.view_evaluation import smaller_dims
from lightning_jv5.metrics import StreamingRetrieval, View
from lightning_jv5.tasks import EmbeddedTexts
from tests.callbacks.tiny_run import STUDENT_DIM, tiny_datamodule, tiny_module, tiny_trainer

DIMS = [8, 16]


def test_fit_logs_figures_and_scalars_to_tensorboard(tmp_path: Path) -> None:
    logger = TensorBoardLogger(tmp_path, name="log")
    trainer = tiny_trainer(tmp_path, [MatryoshkaEvaluation(DIMS), BinaryQuantization()], logger=logger)
    trainer.fit(tiny_module(tmp_path, teacher=False), datamodule=tiny_datamodule())
    events = EventAccumulator(logger.log_dir)
    events.Reload()
    assert set(events.Tags()["images"]) == {"val/matryoshka", "val/bytes", "val/grid/small"}
    assert "val/grid/small/text_summary" in events.Tags()["tensors"]
    for name in ("mrr@10/dim8", "ndcg@10/dim16", "mrr@10/binary", "mrr@10/binary_drop", "mrr@10/dim8_binary"):
        assert [event.value for event in events.Scalars(f"val/small/{name}")] == [
            pytest.approx(float(trainer.callback_metrics[f"val/small/{name}"]))
        ]


def test_views_stay_out_of_the_progress_bar(tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path, [MatryoshkaEvaluation(DIMS)])
    trainer.validate(tiny_module(tmp_path, teacher=False), datamodule=tiny_datamodule(), verbose=False)
    assert not [name for name in trainer.progress_bar_metrics if "dim" in name]


def test_a_pass_that_is_cut_short_logs_nothing(tmp_path: Path) -> None:
    callbacks = [MatryoshkaEvaluation(DIMS), BinaryQuantization()]
    trainer = tiny_trainer(tmp_path, callbacks, limit_val_batches=1, logger=CSVLogger(tmp_path, name="log"))
    trainer.fit(tiny_module(tmp_path, teacher=False), datamodule=tiny_datamodule())
    assert not [name for name in trainer.callback_metrics if name.startswith("val/")]
    assert not (tmp_path / "figures").exists()


@pytest.mark.parametrize("callback", [MatryoshkaEvaluation([8, 64]), BinaryQuantization([64])])
def test_dims_larger_than_the_students_are_refused_before_training(tmp_path: Path, callback: Any) -> None:
    trainer = tiny_trainer(tmp_path, [callback])
    message = rf"got dims \[64\] for a student whose embeddings have {STUDENT_DIM}; .* Take 64 out"
    with pytest.raises(ValueError, match=message):
        trainer.fit(tiny_module(tmp_path, teacher=False), datamodule=tiny_datamodule())


def test_a_module_that_returns_something_else_is_told(tmp_path: Path) -> None:
    module = tiny_module(tmp_path, teacher=False)
    module.validation_step = lambda batch, batch_idx, dataloader_idx=0: None  # type: ignore[method-assign]
    with pytest.raises(ValueError, match=r"got a NoneType from the evaluation step; need EmbeddedTexts"):
        tiny_trainer(tmp_path, [MatryoshkaEvaluation(DIMS)]).validate(module, datamodule=tiny_datamodule())


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> dict[str, Counter[View | None]]:
    """How often a metric of each view was fed with documents, and computed."""
    counts: dict[str, Counter[View | None]] = {"update": Counter(), "compute": Counter()}
    update, compute = StreamingRetrieval.update, StreamingRetrieval.compute

    def counting_update(self: StreamingRetrieval, role: str, *args: Any) -> None:
        counts["update"][self.view] += role == "document"
        update(self, role, *args)

    def counting_compute(self: StreamingRetrieval) -> Any:
        counts["compute"][self.view] += 1
        return compute(self)

    monkeypatch.setattr(StreamingRetrieval, "update", counting_update)
    monkeypatch.setattr(StreamingRetrieval, "compute", counting_compute)
    return counts


WANTED = [View(), View(8), View(16), View(16, "binary"), View(precision="binary"), View(8, "binary")]


def overlapping_callbacks() -> list[ViewEvaluation]:
    return [MatryoshkaEvaluation(DIMS), BinaryQuantization(), BinaryQuantization([16]), RankedExamples()]


@pytest.mark.parametrize("stage", ["validate", "test"])
def test_a_view_that_several_want_is_searched_and_computed_once(
    tmp_path: Path, counted: dict[str, Counter[View | None]], stage: str
) -> None:
    trainer = tiny_trainer(tmp_path, overlapping_callbacks())
    run = getattr(trainer, stage)
    run(tiny_module(tmp_path, teacher=False), datamodule=tiny_datamodule(), verbose=False)
    batches = 4  # seven documents, two at a time
    assert counted["update"] == dict.fromkeys(WANTED, batches)
    assert counted["compute"] == dict.fromkeys(WANTED, 1)


class Foreign(LightningModule):
    """A module of someone else, which only returns what it has encoded."""

    def __init__(self, student: Any) -> None:
        super().__init__()
        self.student = student

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> EmbeddedTexts:
        return EmbeddedTexts(self.student(batch.texts), batch.rows, batch.task, batch.role)


def test_a_foreign_module_gets_the_same_scores(tmp_path: Path) -> None:
    ours = tiny_module(tmp_path, teacher=False)
    foreign = Foreign(ours.student)
    logged = []
    for module in (ours, foreign):
        trainer = tiny_trainer(tmp_path, overlapping_callbacks())
        trainer.validate(module, datamodule=tiny_datamodule(), verbose=False)
        logged.append({name: float(value) for name, value in trainer.callback_metrics.items()})
    alone = {name: value for name, value in logged[0].items() if name.count("/") > 2 or "drop" in name}
    assert alone
    assert logged[1] == alone


def test_callbacks_see_the_embeddings_of_complete_passes_only(tmp_path: Path) -> None:
    class Seen(ViewEvaluation):
        texts = 0

        def views(self) -> list[View]:
            return [View(8)]

        def see(self, trainer: Any, evaluation: Any, embedded: EmbeddedTexts) -> None:
            assert embedded.embeddings.shape == (len(embedded.rows), STUDENT_DIM)
            self.texts += len(embedded.rows)

    module, whole, cut = tiny_module(tmp_path, teacher=False), Seen(), Seen()
    tiny_trainer(tmp_path, [whole]).validate(module, datamodule=tiny_datamodule(), verbose=False)
    tiny_trainer(tmp_path, [cut], limit_val_batches=1).validate(module, datamodule=tiny_datamodule(), verbose=False)
    assert (whole.texts, cut.texts) == (3 + 7, 0)


def test_a_subclass_with_a_step_of_its_own_is_scored_too(tmp_path: Path) -> None:
    module = tiny_module(tmp_path, teacher=False)
    step = module.evaluation_step

    def own_step(batch: Any, batch_idx: int, dataloader_idx: int = 0) -> EmbeddedTexts:
        return step(batch, batch_idx, dataloader_idx)

    module.validation_step = own_step  # type: ignore[method-assign]
    trainer = tiny_trainer(tmp_path, [MatryoshkaEvaluation(DIMS)])
    trainer.validate(module, datamodule=tiny_datamodule(), verbose=False)
    assert float(trainer.callback_metrics["val/small/recall@10"]) == 1  # of seven documents


@pytest.mark.parametrize(
    ("width", "dims"), [(1, [1]), (2, [1]), (3, [1, 2]), (64, [4, 8, 16, 32]), (65, [8, 16, 32, 64])]
)
def test_smaller_dims_are_powers_of_two_below_the_width(width: int, dims: list[int]) -> None:
    assert smaller_dims(width) == dims


class Forgetful(EmbeddingModule):
    def on_validation_epoch_start(self) -> None:
        pass


def test_a_subclass_that_forgets_to_begin_the_pass_is_told(tmp_path: Path) -> None:
    module = Forgetful(tiny_module(tmp_path, teacher=False).student)
    with pytest.raises(ValueError, match=r"The evaluation of Forgetful has not begun.*Call super\(\)"):
        tiny_trainer(tmp_path, []).validate(module, datamodule=tiny_datamodule(), verbose=False)
