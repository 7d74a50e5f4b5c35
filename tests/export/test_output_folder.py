import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from lightning_jv5.export import assemble, convert, export, export_onnx
from lightning_jv5.export.output_folder import check_output
from tests.export.assembled import FAMILIES
from tests.export.conftest import Converted, Stages

CARD = "A model, made with lightning_jv5 0.7."


JINA_V5 = {"README.md": CARD, "config.json": '{"architectures": ["JinaEmbeddingsV5Model"]}'}


def write(folder: Path, files: dict[str, str]) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)


@pytest.mark.parametrize(
    "files",
    [
        {"lightning_jv5.json": "{}"},
        {"onnx.json": "{}"},
        JINA_V5,
        {"README.md": CARD, "config.json": "{}", "adapters/sts/lightning_jv5.json": "{}"},
        {},
    ],
)
def test_a_model_of_ours_or_nothing_is_replaced_where_asked(tmp_path: Path, files: dict[str, str]) -> None:
    write(tmp_path, files)
    check_output(tmp_path, overwrite=True)
    with pytest.raises(ValueError, match=r"which is there already. Choose another, or set overwrite"):
        check_output(tmp_path, overwrite=False)


@pytest.mark.parametrize(
    "files",
    [
        {"mine.txt": "precious"},
        {"README.md": "A thesis"},
        {"models/lightning_jv5.json": "{}"},
        {"config.json": JINA_V5["config.json"]},
        {"README.md": f"A thesis; its model was {CARD}"},
        {"README.md": CARD, "config.json": "[]"},
        {"README.md": CARD, "config.json": '{"architectures": ["BertModel"]}'},
        {"README.md": CARD, "config.json": "cut off"},
        {"README.md": CARD, "adapters/sts/lightning_jv5.json": "{}"},
    ],
)
def test_a_folder_of_something_else_is_never_replaced(tmp_path: Path, files: dict[str, str]) -> None:
    write(tmp_path, files)
    with pytest.raises(ValueError, match=r"which is there and no model of ours to be replaced. Choose another"):
        check_output(tmp_path, overwrite=True)
    with pytest.raises(ValueError, match="no model of ours"):
        check_output(tmp_path / next(iter(files)), overwrite=True)


@pytest.mark.parametrize("stray", ["thesis.tex", "1_Pooling/notes.txt", "train.py", ".git/HEAD", "corpus.jsonl"])
def test_a_model_is_not_replaced_with_what_lies_in_it(tmp_path: Path, stray: str) -> None:
    write(tmp_path, {**JINA_V5, "lightning_jv5.json": "{}", stray: "precious"})
    with pytest.raises(ValueError, match=f"and '{stray}' in it, which would be lost: .*Move it elsewhere, or choose"):
        check_output(tmp_path, overwrite=True)


@pytest.mark.parametrize("family", FAMILIES)
def test_what_the_commands_write_may_be_replaced(converted: Converted, family: str) -> None:
    folders = [
        folder for folder in (converted.folder / family).iterdir() if folder.name != "switching-copy"
    ]  # not ours
    assert len(folders) >= 4
    for folder in folders:
        check_output(folder, overwrite=True)


def test_what_export_and_assemble_of_a_foreign_model_write_may_be_replaced(stages: Stages, tmp_path: Path) -> None:
    check_output(Path(stages.model), overwrite=True)
    check_output(Path(stages.adapter("retrieval")), overwrite=True)
    base = shutil.copytree(stages.model, tmp_path / "base")
    for ours in ("lightning_jv5.json", "README.md"):
        (base / ours).unlink()
    assemble([stages.adapter("retrieval")], str(tmp_path / "model"), base=str(base))
    assemble([stages.adapter("retrieval")], str(tmp_path / "model"), base=str(base), overwrite=True)


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
