import json
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import LightningModule

from lightning_jv5.callbacks import BinaryQuantization, MatryoshkaEvaluation, matryoshka_evaluation
from lightning_jv5.tasks import View
from lightning_jv5.tasks.retrieval import DEFAULT_MEASURES
from tests.callbacks.tiny_run import tiny_datamodule, tiny_module, tiny_task, tiny_trainer
from tests.callbacks.view_scores import directly
from tests.tasks.labelled_texts import one_of_each

DIMS = [8, 16]


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


@pytest.mark.parametrize("dims", [[], [0, 8], [8, 8]])
def test_dims_that_make_no_sense_are_refused(dims: list[int]) -> None:
    with pytest.raises(ValueError, match=r"got dims .* each at least 1 and once"):
        MatryoshkaEvaluation(dims)


def test_tasks_of_one_measure_share_a_panel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    draw = matryoshka_evaluation.draw_curves

    def drawing(*args: Any, **settings: Any) -> Any:
        drawn.append(draw(*args, **settings))
        return drawn[-1]

    monkeypatch.setattr(matryoshka_evaluation, "draw_curves", drawing)
    tasks = {"small": tiny_task(), "other": tiny_task(), "sts": one_of_each()["sts"]}
    trainer = tiny_trainer(tmp_path, [MatryoshkaEvaluation(DIMS)])
    trainer.validate(tiny_module(tmp_path, teacher=False), datamodule=tiny_datamodule(val=tasks), verbose=False)
    panels = [(axes.get_title(), axes.get_ylabel(), len(axes.lines)) for axes in drawn[0].axes]
    assert panels == [("small, other", "mrr@10", 2), ("sts", "spearman", 1)]


@pytest.mark.parametrize("first", [True, False])
def test_without_dims_they_follow_the_students_width_also_for_sign_bits(tmp_path: Path, first: bool) -> None:
    callbacks = [MatryoshkaEvaluation(), BinaryQuantization()]
    trainer = tiny_trainer(tmp_path, callbacks if first else callbacks[::-1])
    trainer.validate(tiny_module(tmp_path, teacher=False), datamodule=tiny_datamodule(), verbose=False)
    names = {name.rpartition("/")[2] for name in trainer.callback_metrics if name.startswith("val/small/mrr@10/")}
    bits = {f"dim{dim}_binary" for dim in (2, 4, 8, 16)} | {"binary"}
    assert names == {f"dim{dim}" for dim in (2, 4, 8, 16)} | bits | {f"{name}_drop" for name in bits}


def test_without_dims_the_students_width_must_be_known(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"got no dims, and LightningModule has no student\.dim to choose them by"):
        MatryoshkaEvaluation().setup(tiny_trainer(tmp_path, []), LightningModule(), "fit")


@pytest.mark.parametrize("others_first", [True, False])
def test_the_curve_has_each_value_at_its_dim_whoever_wants_a_view_first(tmp_path: Path, others_first: bool) -> None:
    others = [BinaryQuantization(dims=[16])]
    callbacks = [*others, MatryoshkaEvaluation([1, 16])] if others_first else [MatryoshkaEvaluation([1, 16]), *others]
    module = tiny_module(tmp_path, teacher=False)
    tiny_trainer(tmp_path, callbacks).validate(module, datamodule=tiny_datamodule(), verbose=False)
    drawn = json.loads((tmp_path / "figures" / "val.matryoshka.step-0.json").read_text())
    expected = directly(module, View(1), View(16))
    values = [expected["mrr@10", f"dim{dim}"] for dim in (1, 16)]
    assert values[0] != values[1]
    assert (drawn["dims"], drawn["values"]["small"]) == ([1, 16], pytest.approx(values))
