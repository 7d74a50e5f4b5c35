import json
from pathlib import Path

import pytest
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from matplotlib.figure import Figure
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lightning_jv5.callbacks import log_figure, log_text, write_json

PNG = b"\x89PNG"


def drawn() -> Figure:
    figure = Figure()
    figure.subplots().plot([1, 2])
    return figure


@pytest.mark.parametrize("kind", ["tensorboard", "csv", "none"])
def test_every_logger_leaves_png_text_and_json(tmp_path: Path, kind: str) -> None:
    loggers = {"tensorboard": TensorBoardLogger, "csv": CSVLogger}
    logger = loggers[kind](tmp_path, name="log") if kind in loggers else False
    trainer = Trainer(accelerator="cpu", logger=logger, default_root_dir=tmp_path, enable_progress_bar=False)
    log_figure(trainer, "val/curve", drawn(), {"y": [1, 2]})
    log_text(trainer, "val/note", "a **note**", {"note": "ä"})
    assert (tmp_path / "figures" / "val.curve.step-0.png").read_bytes().startswith(PNG)
    assert json.loads((tmp_path / "figures" / "val.curve.step-0.json").read_text()) == {"y": [1, 2]}
    assert (tmp_path / "texts" / "val.note.step-0.md").read_text() == "a **note**\n"
    assert json.loads((tmp_path / "texts" / "val.note.step-0.json").read_text("utf-8")) == {"note": "ä"}
    if kind == "tensorboard":
        events = EventAccumulator(trainer.loggers[0].log_dir)
        trainer.loggers[0].experiment.flush()
        events.Reload()
        assert events.Tags()["images"] == ["val/curve"]
        assert events.Tensors("val/note/text_summary")[0].tensor_proto.string_val == [b"a **note**"]


def test_a_figure_leaves_pyplot_as_it_was(tmp_path: Path) -> None:
    import matplotlib.pyplot as plt

    mine = plt.figure()
    logger = TensorBoardLogger(tmp_path, name="log")
    trainer = Trainer(accelerator="cpu", logger=logger, default_root_dir=tmp_path, enable_progress_bar=False)
    log_figure(trainer, "curve", drawn(), {})
    assert plt.get_fignums() == [mine.number]
    plt.close(mine)


def test_a_failed_write_leaves_the_old_file_alone(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"a": 1})
    with pytest.raises(TypeError, match="not JSON serializable"):
        write_json(tmp_path / "a.json", {"a": object()})
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
