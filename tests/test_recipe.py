import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors.torch import load_file

from lightning_jv5 import Embedder
from lightning_jv5.cli import main
from lightning_jv5.config_files import packaged_configs
from lightning_jv5.recipe import Stage, recipe, stage_key, stages_table
from tests.stages import write_stages
from tests.tiny_configs import with_tiny_docstrings
from tests.tiny_models import TEXTS

ROOT = Path(__file__).parent.parent
KILLER = """
import os, signal
from pathlib import Path
from lightning.pytorch import Callback

class KillOnce(Callback):
    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if trainer.global_step == 2 and not Path("killed").exists():
            Path("killed").touch()
            os.kill(os.getpid(), signal.SIGKILL)
"""


def write_recipe(folder: Path, **changes: Any) -> None:
    pairs = {"class_path": "lightning_jv5.data.LocalFiles", "init_args": {"paths": "pairs.jsonl"}}
    saving = {"class_path": "lightning.pytorch.callbacks.ModelCheckpoint"}
    every_step = {"every_n_train_steps": 1, "filename": "last", "enable_version_counter": False}
    content = {
        "name": "tiny",
        "output": "models/tiny",
        "stages": {
            "student": {"config": "distill.yaml"},
            "retrieval": {
                "config": ["adapter.yaml", "kill.yaml"],
                "after": "student",
                "settings": ["trainer.log_every_n_steps=1"],
            },
        },
        "tasks": {"pairs": {"class_path": "lightning_jv5.RetrievalTask", "init_args": {"pairs": pairs}}},
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(content | changes, sort_keys=False))
    callbacks = [saving | {"init_args": every_step}, {"class_path": "killer.KillOnce"}]
    (folder / "kill.yaml").write_text(yaml.safe_dump({"trainer": {"callbacks": callbacks}}))
    (folder / "killer.py").write_text(KILLER)


def run(folder: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{folder}"}
    command = [sys.executable, "-m", "lightning_jv5", "recipe", "--config=recipe.yaml", *words]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def adapter_weights(folder: Path) -> dict[str, Any]:
    return load_file(folder / "models" / "tiny" / "adapters" / "retrieval" / "adapter_model.safetensors")


def test_an_interrupted_recipe_goes_on_and_a_finished_one_is_not_trained_again(tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for folder in (whole, killed):
        folder.mkdir()
        write_stages(folder, steps=4)
        write_recipe(folder)
    (whole / "killed").touch()  # nobody kills this one

    assert run(whole).returncode == 0
    first = run(killed)
    assert first.returncode == 2
    assert f"ended with status {-signal.SIGKILL}; what went wrong is above" in first.stderr
    assert not (killed / "models").exists()
    second = run(killed)
    assert second.returncode == 0, second.stderr
    assert "stage 1 of 2: student is finished" in second.stdout
    assert [path.name for path in (killed / "runs" / "tiny").glob("retrieval-*/version_*")] == ["version_0"]
    expected, resumed = adapter_weights(whole), adapter_weights(killed)
    assert all((resumed[name] == weights).all() for name, weights in expected.items())

    third = run(killed)
    assert "stage 2 of 2: retrieval is finished" in third.stdout
    table = third.stdout[third.stdout.index("stage ") :].splitlines()
    assert table[-5].split() == ["stage", "pairs,", "ndcg@10"]
    assert [line.split()[0] for line in table[-4:-2]] == ["student", "retrieval"]
    results = json.loads((killed / "models" / "tiny" / "results.json").read_text())
    assert results["main_metrics"] == {"pairs": "ndcg@10"}
    assert list(results["scores"]) == ["student", "retrieval"]
    assert "| retrieval | " in (killed / "models" / "tiny" / "README.md").read_text()
    embedder = Embedder(str(killed / "models" / "tiny"))
    assert (embedder.encode(TEXTS, task="retrieval") - embedder.encode(TEXTS)).abs().max() > 1e-3


def test_a_stage_is_named_by_all_that_decides_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("one.yaml").write_text("a: 1\nb: [2]\n")
    key = stage_key(Stage("one.yaml"), None)
    Path("one.yaml").write_text("# a comment\nb: [2]\na: 1\n")
    assert stage_key(Stage("one.yaml"), None) == key
    assert stage_key(Stage("one.yaml"), "student-0") != key
    assert stage_key(Stage("one.yaml", settings=["a=3"]), None) != key
    assert stage_key(Stage("one.yaml", checkpoint="best"), None) != key
    Path("one.yaml").write_text("a: 1\nb: [3]\n")
    assert stage_key(Stage("one.yaml"), None) != key


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ({}, "Got a recipe without stages"),
        ({"a": Stage("small.yaml", after="b")}, "Got the stage 'a' after 'b'; the stages before it are none"),
        ({"a/b": Stage("small.yaml")}, "Got a stage named 'a/b'; it becomes a folder"),
        ({"a": Stage("smal.yaml")}, r"no config smal.yaml. Did you mean small.yaml\?"),
    ],
)
def test_stages_that_do_not_fit_together_are_refused(
    stages: dict[str, Stage], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message):
        recipe(stages, {}, "model")
    assert not list(tmp_path.iterdir())


def test_a_folder_of_something_else_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(ValueError, match="which is there and no model of ours to be replaced"):
        recipe({"a": Stage("small.yaml")}, {}, str(tmp_path))
    assert (tmp_path / "mine.txt").read_text() == "precious"


def test_a_recipe_without_adapters_ends_with_its_last_model(tmp_path: Path) -> None:
    write_stages(tmp_path, steps=1)
    write_recipe(tmp_path, stages={"student": {"config": "distill.yaml"}}, license="mit")
    done = run(tmp_path)
    assert done.returncode == 0, done.stderr
    [stage] = (tmp_path / "runs" / "tiny").glob("student-*/model")
    model = tmp_path / "models" / "tiny"
    assert (Embedder(str(model)).encode(TEXTS) == Embedder(str(stage)).encode(TEXTS)).all()
    assert (model / "results.json").is_file()
    assert "\nlicense: mit\n" in (model / "README.md").read_text()


def test_a_recipe_is_not_for_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match=r"Got several processes.*Run it once, with trainer.devices"):
        recipe({"a": Stage("small.yaml")}, {}, "model")


def test_wrong_stages_are_refused_when_they_are_written() -> None:
    with pytest.raises(ValueError, match="Got a stage without a config"):
        Stage([])
    with pytest.raises(ValueError, match="Got the setting '--a=3' of a stage; need key=value"):
        Stage("small.yaml", settings=["--a=3"])
    with pytest.raises(ValueError, match="Got checkpoint 'newest'; need one of last, best, averaged"):
        Stage("small.yaml", checkpoint="newest")  # type: ignore[arg-type]


def test_a_checkpoint_that_no_callback_wrote_is_missed(tmp_path: Path) -> None:
    write_stages(tmp_path, steps=1)
    write_recipe(tmp_path, stages={"student": {"config": "distill.yaml", "checkpoint": "averaged"}})
    done = run(tmp_path)
    assert done.returncode == 2
    assert "The stage 'student' is trained, but there is no" in done.stderr
    assert "'averaged' the callback AdapterAveraging" in done.stderr


def test_the_best_of_each_task_is_starred() -> None:
    scores = {"student": {"a": 0.5, "b": 0.9}, "other": {"a": 0.75, "b": 0.1}}
    assert stages_table(scores, {"a": "accuracy", "b": "v_measure"}).splitlines() == [
        "stage    a, accuracy    b, v_measure",
        "student       0.5000          0.9000 *",
        "other         0.7500 *        0.1000",
    ]


def test_the_shipped_recipe_trains_every_small_config(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for shipped in packaged_configs().glob("small*.yaml"):
        content = with_tiny_docstrings(yaml.safe_load(shipped.read_text()))
        (tmp_path / shipped.name).write_text(yaml.safe_dump(content, sort_keys=False))  # found before the packaged one
    main(["recipe", "--config=small_recipe.yaml"])
    shown = capsys.readouterr().out
    assert (
        "stage           docstrings, ndcg@10    similarity, spearman    topics, v_measure    packages, accuracy"
        in shown
    )
    trained = {path.name.rpartition("-")[0] for path in (tmp_path / "runs" / "small_recipe").iterdir()}
    assert trained == {"student", "retrieval", "text-matching", "clustering", "classification"}
    stages = yaml.safe_load((packaged_configs() / "small_recipe.yaml").read_text())["stages"]
    assert {f"{path.stem}.yaml" for path in packaged_configs().glob("small*.yaml")} == {
        "small_recipe.yaml",
        *(stage["config"] for stage in stages.values()),
    }
    assert Embedder(str(tmp_path / "models" / "small")).tasks == sorted(trained - {"student"})
