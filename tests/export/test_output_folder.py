from collections.abc import Callable
from pathlib import Path

import pytest

from lightning_jv5.export import assemble, convert, export, export_onnx
from lightning_jv5.export.output_folder import check_output
from tests.export.conftest import Stages

CARD = "A model, made with lightning_jv5 0.7."


@pytest.mark.parametrize("name", ["lightning_jv5.json", "onnx.json", "README.md", None])
def test_a_model_of_ours_or_nothing_is_replaced_where_asked(tmp_path: Path, name: str | None) -> None:
    if name is not None:
        (tmp_path / name).write_text(CARD)
    check_output(tmp_path, overwrite=True)
    with pytest.raises(ValueError, match=r"which is there already. Choose another, or set overwrite"):
        check_output(tmp_path, overwrite=False)


@pytest.mark.parametrize("name", ["mine.txt", "README.md", "models/lightning_jv5.json", "config.json"])
def test_a_folder_of_something_else_is_never_replaced(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("precious")
    with pytest.raises(ValueError, match=r"which is there and no model of ours to be replaced. Choose another"):
        check_output(tmp_path, overwrite=True)
    with pytest.raises(ValueError, match="no model of ours"):
        check_output(tmp_path / name, overwrite=True)  # a file


def test_what_is_not_there_may_be_written(tmp_path: Path) -> None:
    for overwrite in (False, True):
        check_output(tmp_path / "new", overwrite)


def test_every_command_keeps_a_folder_of_something_else(stages: Stages, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("precious")
    here = str(tmp_path)
    commands: list[Callable[[], object]] = [
        lambda: export(stages.checkpoint("distill"), here, overwrite=True),
        lambda: assemble([stages.adapter("retrieval")], here, overwrite=True),
        lambda: convert(stages.adapter("retrieval"), here, "merged", overwrite=True),
        lambda: export_onnx(stages.model, here, overwrite=True),
    ]
    for command in commands:
        with pytest.raises(ValueError, match="no model of ours to be replaced"):
            command()
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
