import json
import re
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import LightningModule
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lightning_jv5.callbacks import BinaryQuantization, MatryoshkaEvaluation
from lightning_jv5.callbacks.view_evaluation import smaller_dims
from lightning_jv5.tasks import View, evaluate
from lightning_jv5.tasks.retrieval import DEFAULT_MEASURES
from tests.callbacks.tiny_run import STUDENT_DIM, tiny_datamodule, tiny_module, tiny_task, tiny_trainer

DIMS = [8, 16]


def directly(module: Any, *views: View) -> dict[tuple[str, str], float]:
    scores = evaluate(module.encode, {"small": tiny_task()}, views, progress=False)
    return {(measure, score.view.name): value for score in scores for measure, value in score.values.items()}


@pytest.mark.parametrize("stage", ["val", "test"])
def test_matryoshka_logs_what_evaluate_gives(tmp_path: Path, stage: str) -> None:
    module = tiny_module(tmp_path, teacher=False)
    trainer = tiny_trainer(tmp_path, [MatryoshkaEvaluation(DIMS)])
    run = trainer.validate if stage == "val" else trainer.test
    [logged] = run(module, datamodule=tiny_datamodule(), verbose=False)[:1]
    logged = trainer.callback_metrics
    expected = directly(module, *(View(dim) for dim in DIMS))
    names = {f"{stage}/small/{measure}/{view}" for measure, view in expected}
    assert names == {f"{stage}/small/{measure}/dim{dim}" for measure in DEFAULT_MEASURES for dim in DIMS}
    for (measure, view), value in expected.items():
        assert float(logged[f"{stage}/small/{measure}/{view}"]) == pytest.approx(value)
    assert names | {f"{stage}/small/{measure}" for measure in DEFAULT_MEASURES} == set(logged)
    drawn = json.loads((tmp_path / "figures" / f"{stage}.matryoshka.step-0.json").read_text())
    assert drawn["dims"] == DIMS
    assert drawn["values"]["small"] == pytest.approx([expected["mrr@10", f"dim{dim}"] for dim in DIMS])
    assert (tmp_path / "figures" / f"{stage}.matryoshka.step-0.png").is_file()


@pytest.mark.parametrize("dims", [None, DIMS])
def test_binary_logs_bits_and_their_drop(tmp_path: Path, dims: list[int] | None) -> None:
    module = tiny_module(tmp_path, teacher=False)
    trainer = tiny_trainer(tmp_path, [BinaryQuantization(dims)])
    trainer.validate(module, datamodule=tiny_datamodule(), verbose=False)
    logged = trainer.callback_metrics
    for dim in dims or [None]:
        bits, floats = View(dim, "binary"), View(dim)
        expected = directly(module, bits, floats)
        for measure in DEFAULT_MEASURES:
            value = expected[measure, bits.name]
            assert float(logged[f"val/small/{measure}/{bits.name}"]) == pytest.approx(value)
        drop = expected["mrr@10", floats.name] - expected["mrr@10", bits.name]
        assert float(logged[f"val/small/mrr@10/{bits.name}_drop"]) == pytest.approx(drop)
    assert not any(re.search(r"/dim\d+$", name) for name in logged)


def test_fit_logs_figures_and_scalars_to_tensorboard(tmp_path: Path) -> None:
    logger = TensorBoardLogger(tmp_path, name="log")
    trainer = tiny_trainer(tmp_path, [MatryoshkaEvaluation(DIMS), BinaryQuantization()], logger=logger)
    trainer.fit(tiny_module(tmp_path, teacher=False), datamodule=tiny_datamodule())
    events = EventAccumulator(logger.log_dir)
    events.Reload()
    assert events.Tags()["images"] == ["val/matryoshka"]
    for name in ("mrr@10/dim8", "ndcg@10/dim16", "mrr@10/binary", "mrr@10/binary_drop"):
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


@pytest.mark.parametrize("dims", [[], [0, 8], [8, 8]])
def test_dims_that_make_no_sense_are_refused(dims: list[int]) -> None:
    with pytest.raises(ValueError, match=r"got dims .* each at least 1 and once"):
        MatryoshkaEvaluation(dims)


def test_a_module_that_returns_something_else_is_told(tmp_path: Path) -> None:
    module = tiny_module(tmp_path, teacher=False)
    module.validation_step = lambda batch, batch_idx, dataloader_idx=0: None  # type: ignore[method-assign]
    with pytest.raises(ValueError, match=r"got a NoneType from the evaluation step; need EmbeddedTexts"):
        tiny_trainer(tmp_path, [MatryoshkaEvaluation(DIMS)]).validate(module, datamodule=tiny_datamodule())


@pytest.mark.parametrize("first", [True, False])
def test_without_dims_they_follow_the_students_width(tmp_path: Path, first: bool) -> None:
    follows, given = MatryoshkaEvaluation(), MatryoshkaEvaluation([STUDENT_DIM])
    trainer = tiny_trainer(tmp_path, [follows, given] if first else [given, follows])
    trainer.validate(tiny_module(tmp_path, teacher=False), datamodule=tiny_datamodule(), verbose=False)
    dims = {name.rpartition("/dim")[2] for name in trainer.callback_metrics if "/dim" in name}
    assert dims == {"2", "4", "8", "16", "32"}


def test_without_dims_the_students_width_must_be_known(tmp_path: Path) -> None:
    module = LightningModule()
    with pytest.raises(ValueError, match=r"got no dims, and LightningModule has no student\.dim to choose them by"):
        MatryoshkaEvaluation().setup(tiny_trainer(tmp_path, []), module, "fit")


@pytest.mark.parametrize(
    ("width", "dims"), [(1, [1]), (2, [1]), (3, [1, 2]), (64, [4, 8, 16, 32]), (65, [8, 16, 32, 64])]
)
def test_smaller_dims_are_powers_of_two_below_the_width(width: int, dims: list[int]) -> None:
    assert smaller_dims(width) == dims
