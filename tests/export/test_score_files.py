import re
from pathlib import Path
from typing import Any

import pytest

from lightning_jv5.cli import main
from lightning_jv5.data.cache import write_json
from lightning_jv5.export import assemble, convert, export
from lightning_jv5.export.score_files import read_scores
from tests.export.assembled import read
from tests.export.conftest import Converted, Stages


def write_run(folder: Path, value: float, task: str = "sts") -> Path:
    """Write what validate does to the folder of its run."""
    row = {"task": task, "dim": 32, "precision": "float", "main_metric": "spearman", "values": {"spearman": value}}
    write_json(folder / "scores.json", {"model": {"path": str(folder / "model")}, "scores": [row]})
    return folder


def shown(folder: Path) -> list[str]:
    """Return the tables of scores of a card as lines, but for their headers."""
    _, _, below = (folder / "README.md").read_text(encoding="utf-8").partition("## Scores\n")
    return re.findall(r"^The adapter .*|^\| \w+ \| 32 .*", below, re.MULTILINE)


def test_every_command_with_a_card_shows_the_scores_it_is_given(stages: Stages, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", 0.25)
    folders = {name: tmp_path / name for name in ("stage", "assembled", "merged", "switching", "jina_v5")}
    for scores in (run, run / "scores.json"):
        export(stages.checkpoint("distill"), str(folders["stage"]), scores=str(scores), overwrite=True)
        assert shown(folders["stage"]) == ["| sts | 32 | float | spearman | 0.2500 |"]
    assemble([stages.adapter("retrieval")], str(folders["assembled"]), scores=str(run))
    model = tmp_path / "model"
    assemble([stages.adapter("retrieval")], str(model))
    assert shown(model) == []
    words = [f"--model={model}", f"--scores={run}"]
    for layout in ("merged", "switching", "jina_v5"):
        main(["convert", *words, f"--output={folders[layout]}", f"--layout={layout}"])
    for folder in folders.values():
        assert shown(folder) == ["| sts | 32 | float | spearman | 0.2500 |"]
        assert read(folder / "scores.json")["model"] == {"path": "model"}  # no path of the machine


def test_the_scores_of_an_adapter_go_where_it_goes_and_those_of_its_model_stay(stages: Stages, tmp_path: Path) -> None:
    base, adapter = tmp_path / "base", tmp_path / "adapter"
    export(stages.checkpoint("distill"), str(base), scores=str(write_run(tmp_path / "one", 0.25)))
    export(stages.checkpoint("retrieval"), str(adapter), scores=str(write_run(tmp_path / "two", 0.5)))
    assemble([str(adapter)], str(tmp_path / "model"), base=str(base))
    own = "| sts | 32 | float | spearman | 0.5000 |"
    assert shown(tmp_path / "model") == ["The adapter retrieval:", own]
    for layout, lines in {"switching": ["The adapter retrieval:", own], "merged": [own]}.items():
        for source in (tmp_path / "model", adapter):
            convert(str(source), str(tmp_path / layout), layout, overwrite=True)  # type: ignore[arg-type]
            assert shown(tmp_path / layout)[-len(lines) :] == lines
    new = write_run(tmp_path / "three", 0.75)
    convert(str(adapter), str(tmp_path / "merged"), "merged", scores=str(new), overwrite=True)
    assert shown(tmp_path / "merged") == ["| sts | 32 | float | spearman | 0.7500 |"]


@pytest.mark.parametrize(
    "content",
    [b"cut off", b"\xff", b"[]", b"{}", b'{"scores": {}}', b'{"scores": [1]}', b'{"scores": [{"task": "a"}]}'],
)
def test_what_validate_did_not_write_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "scores.json").write_bytes(content)
    wanted = "is not what validate or test write: a list of scores, each with dim, precision, task, values"
    for path in (tmp_path, tmp_path / "scores.json"):
        with pytest.raises(ValueError, match=wanted):
            read_scores(str(path))


def test_scores_that_are_not_there_are_said_before_anything_is_written(
    stages: Stages, converted: Converted, tmp_path: Path
) -> None:
    out: Any = str(tmp_path / "out")
    model = str(converted.layout("bert", "assembled"))
    message = r"Got scores 'nowhere', but there is no file 'nowhere'. Give the scores.json that validate or test wrote"
    with pytest.raises(ValueError, match=message):
        export(stages.checkpoint("distill"), out, scores="nowhere")
    with pytest.raises(ValueError, match=message):
        assemble([stages.adapter("retrieval")], out, scores="nowhere")
    with pytest.raises(ValueError, match=message):
        convert(model, out, "merged", task="retrieval", scores="nowhere")
    with pytest.raises(ValueError, match=r"but there is no file '.*scores.json'"):
        read_scores(str(tmp_path))
    assert list(tmp_path.iterdir()) == []
    assert read_scores(None) is None
