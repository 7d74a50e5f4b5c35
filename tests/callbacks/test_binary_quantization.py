import json
import re
from pathlib import Path
from typing import Any

import pytest

from lightning_jv5.callbacks import BinaryQuantization, MatryoshkaEvaluation
from lightning_jv5.tasks import View
from lightning_jv5.tasks.retrieval import DEFAULT_MEASURES
from tests.callbacks.tiny_run import STUDENT_DIM, tiny_datamodule, tiny_module, tiny_task, tiny_trainer
from tests.callbacks.view_scores import directly
from tests.tasks.labelled_texts import one_of_each

DIMS = [8, 16]


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


def test_dims_are_those_of_the_matryoshka_evaluation_beside_it(tmp_path: Path) -> None:
    binary = BinaryQuantization()
    trainer = tiny_trainer(tmp_path, [binary, MatryoshkaEvaluation([*DIMS, STUDENT_DIM])])
    trainer.validate(tiny_module(tmp_path, teacher=False), datamodule=tiny_datamodule(), verbose=False)
    assert [view.name for view in binary.views() if view.precision == "binary"] == [
        "dim8_binary",
        "dim16_binary",
        "binary",
    ]
    assert {"val/small/mrr@10/dim8_binary_drop", "val/small/mrr@10/binary_drop"} <= trainer.callback_metrics.keys()


def test_every_mode_is_logged_where_the_task_has_it(tmp_path: Path) -> None:
    tasks: Any = {"small": tiny_task(), "topics": one_of_each()["topics"]}
    module = tiny_module(tmp_path, teacher=False)
    trainer = tiny_trainer(tmp_path, [BinaryQuantization(modes=("binary", "asymmetric"), int8=True)])
    trainer.validate(module, datamodule=tiny_datamodule(val=tasks), verbose=False)
    logged = trainer.callback_metrics
    expected = directly(module, View(), *(View(precision=name) for name in ("int8", "asymmetric")))  # type: ignore[arg-type]
    for precision in ("int8", "asymmetric"):
        value = expected["mrr@10", precision]
        assert float(logged[f"val/small/mrr@10/{precision}"]) == pytest.approx(value)
        assert float(logged[f"val/small/mrr@10/{precision}_drop"]) == pytest.approx(expected["mrr@10", ""] - value)
    assert {name for name in logged if name.startswith("val/topics/v_measure/")} == {
        f"val/topics/v_measure/{name}" for name in ("int8", "int8_drop", "binary", "binary_drop")
    }


def test_the_grid_says_what_each_way_to_store_keeps(tmp_path: Path) -> None:
    module = tiny_module(tmp_path, teacher=False)
    trainer = tiny_trainer(tmp_path, [BinaryQuantization([8], int8=True)])
    trainer.validate(module, datamodule=tiny_datamodule(), verbose=False)
    scores = directly(module, View(), View(8), View(8, "int8"), View(8, "binary"))
    full = scores["mrr@10", ""]
    cells = json.loads((tmp_path / "figures" / "val.grid.small.step-0.json").read_text())["cells"]
    ways = [(STUDENT_DIM, "float", 128, ""), (8, "float", 32, "dim8"), (8, "int8", 8, "dim8_int8")]
    ways.append((8, "binary", 1, "dim8_binary"))
    for cell, (dim, precision, size, view) in zip(cells, ways, strict=True):
        assert (cell["dim"], cell["precision"], cell["bytes_per_vector"]) == (dim, precision, size)
        assert cell["score"] == pytest.approx(scores["mrr@10", view])
        assert cell["share_of_full"] == pytest.approx(scores["mrr@10", view] / full)
    table = (tmp_path / "texts" / "val.grid.small.step-0.md").read_text()
    assert f"| 8 | binary | 1 | {cells[3]['score']:.4f} | {cells[3]['share_of_full']:.1%} |" in table
    assert (tmp_path / "figures" / "val.grid.small.step-0.png").is_file()
    rows = json.loads((tmp_path / "figures" / "val.bytes.step-0.json").read_text())["rows"]
    assert rows == [{"task": "small", **cell} for cell in cells]


@pytest.mark.parametrize("modes", [(), ("binary", "binary"), ("ternary",)])
def test_modes_that_make_no_sense_are_refused(modes: Any) -> None:
    with pytest.raises(ValueError, match=r"got modes .*; need one or more of \['binary', 'asymmetric', 'rescored'\]"):
        BinaryQuantization(modes=modes)
