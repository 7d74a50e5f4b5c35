"""The programs and configs that the docs show run."""

import functools
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from jsonargparse import ArgumentParser

import lightning_jv5
from lightning_jv5 import ClusteringTask, Embedder, EmbeddingModule, STSTask
from lightning_jv5.cli import main
from lightning_jv5.data import LocalFiles, TrainingSet
from lightning_jv5.export import assemble
from lightning_jv5.losses import EmbeddingBatch, Loss, Objective
from lightning_jv5.tasks import evaluate
from tests.doc_pages import ROOT, blocks, yaml_blocks
from tests.export.assembled import write_assembled
from tests.models.tiny_adapters import write_adapter
from tests.tiny_beir import write_beir
from tests.tiny_configs import write_config, write_pairs
from tests.tiny_data import tiny_texts
from tests.tiny_models import save_tiny_sentence_transformer

MAIN_METRICS = {
    "scifact": "ndcg@10",
    "candidates": "map@1000",
    "similarity": "spearman",
    "duplicates": "ap",
    "translations": "f1",
    "topics": "v_measure",
    "intents": "accuracy",
}


def test_the_objectives_in_the_docs_can_be_built_and_have_a_gradient() -> None:
    [objective] = [block["objective"] for block in yaml_blocks(ROOT / "docs" / "losses.md") if "objective" in block]
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--objective", type=Objective)
    built = parser.instantiate(parser.parse_object({"objective": objective})).objective
    query, document = (torch.randn(4, 384, requires_grad=True) for _ in range(2))
    teachers = {f"{role}_teacher": torch.randn(4, 1024) for role in ("query", "document")}
    batch = EmbeddingBatch(query, document, **teachers)
    assert list(built.named_terms(batch)) == ["retrieval/contrast", "retrieval/distill", "spread"]
    built(batch).backward()
    assert all(parameter.grad is not None for parameter in [query, document, *built.parameters()])


def test_the_evaluation_tasks_in_the_docs_are_scored_by_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LIGHTNING_JV5_CACHE", str(tmp_path / "cache"))
    write_config(tmp_path)
    texts = tiny_texts(80, seed=10)
    labelled = [{"text": text, "label": "abc"[row % 3]} for row, text in enumerate(texts)]
    rows: dict[str, list[dict[str, Any]]] = {
        "sts.jsonl": [{"text1": texts[row], "text2": texts[row + 40], "score": row % 6} for row in range(40)],
        "topics.jsonl": labelled,
        "intents_train.jsonl": labelled[:50],
        "intents_test.jsonl": labelled[50:],
        "candidates.jsonl": [
            {"query": texts[row], "positive": texts[row + 20 : row + 22], "negative": texts[row + 30 : row + 36]}
            for row in range(9)
        ],
        "duplicates.jsonl": [
            {"text1": texts[row], "text2": texts[row + 40], "label": row % 2 == 1} for row in range(40)
        ],
        "translations.jsonl": [{"text1": texts[row], "text2": texts[row + 40], "lang": "de"} for row in range(40)],
    }
    corpus = [{"_id": f"d{row}", "text": text} for row, text in enumerate(texts[10:])]
    write_beir(
        Path("scifact"),
        corpus,
        [{"_id": f"q{row}", "text": text} for row, text in enumerate(texts[:10])],
        [(f"q{row}", f"d{row}", 1) for row in range(10)],
        split="test",
    )
    for name, lines in rows.items():
        Path(name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    tasks, views, newer = yaml_blocks(ROOT / "docs" / "evaluation.md")
    views["trainer"]["callbacks"][0]["init_args"]["dims"] = [16, 8]
    Path("tasks.yaml").write_text(yaml.safe_dump(tasks, sort_keys=False))
    Path("views.yaml").write_text(yaml.safe_dump(views, sort_keys=False))
    main(["validate", "--config=tiny.yaml", "--config=tasks.yaml", "--config=views.yaml"])
    shown = capsys.readouterr().out
    assert all(re.search(rf"^{name} +{measure} ", shown, re.MULTILINE) for name, measure in MAIN_METRICS.items())
    logged = json.loads(Path("runs/tiny/version_0/scores.json").read_text())["logged"]
    assert {f"val/{name}/{measure}" for name, measure in MAIN_METRICS.items()} | {"val/intents/knn_accuracy"} <= {
        *logged
    }
    assert "val/topics/v_measure_std" not in logged
    clustering = ClusteringTask(LocalFiles("topics.jsonl"), **newer["init_args"])
    assert (clustering.bootstrap, clustering.repeats, clustering.batch_size) == (16384, 10, 512)


def test_the_mixture_in_the_docs_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LIGHTNING_JV5_CACHE", str(tmp_path / "cache"))
    write_config(tmp_path)
    (tmp_path / "web").mkdir()
    texts = tiny_texts(120, seed=9)
    kinds, topics = ("entailment", "neutral"), "abcd"
    rows: dict[str, list[dict[str, Any]]] = {
        "nli.jsonl": [
            {"premise": texts[row], "hypothesis": f"the {texts[row + 40]}", "label": kinds[row % 4 == 3]}
            for row in range(40)
        ],
        "sts.jsonl": [{"text1": texts[row], "text2": texts[row + 60], "score": row / 4} for row in range(20)],
        "intents.jsonl": [{"text": text, "label": topics[row % 4] if row else "e"} for row, text in enumerate(texts)],
        "web/0.jsonl": [{"query": texts[row], "document": texts[row + 50]} for row in range(40)],
    }
    for name, lines in rows.items():
        Path(name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    [mixture] = [block for block in yaml_blocks(ROOT / "docs" / "data.md") if "nli" in block["data"]["train"]]
    Path("mixture.yaml").write_text(yaml.safe_dump(mixture, sort_keys=False))
    tensorboard = "--trainer.logger=lightning.pytorch.loggers.CSVLogger"
    main(["fit", "--config=tiny.yaml", "--config=mixture.yaml", tensorboard, "--trainer.logger.save_dir=logs"])
    [metrics] = Path("logs").rglob("metrics.csv")
    header = metrics.read_text().splitlines()[0].split(",")
    assert {f"sets/{name}/loss" for name in ("nli", "sts", "intents", "web")} <= set(header)


def test_the_sources_without_files_in_the_docs_train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LIGHTNING_JV5_CACHE", str(tmp_path / "cache"))
    write_config(tmp_path)
    [config] = [block for block in yaml_blocks(ROOT / "docs" / "data.md") if "labels" in block["data"]["train"]]
    Path("without_files.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    tensorboard = "--trainer.logger=lightning.pytorch.loggers.CSVLogger"
    main(["fit", "--config=tiny.yaml", "--config=without_files.yaml", tensorboard, "--trainer.logger.save_dir=logs"])
    [metrics] = Path("logs").rglob("metrics.csv")
    header = metrics.read_text().splitlines()[0].split(",")
    assert {f"sets/{name}/loss" for name in ("labels", "similarity", "pairs")} <= set(header)


def test_the_long_texts_in_the_docs_are_made_and_fit_their_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIGHTNING_JV5_CACHE", str(tmp_path))
    [block] = [block for block in yaml_blocks(ROOT / "docs" / "data.md") if "long" in block["data"]["train"]]
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--train", type=dict[str, TrainingSet])
    train = parser.instantiate(parser.parse_object({"train": block["data"]["train"]})).train
    assert (train["long"].source.rows, train["long"].batch_size, train["short"].batch_size) == (20_000, 64, 256)
    train["long"].source.rows = 6
    rows = train["long"].source.load()
    assert rows["language"][:] == ["en", "de", "zh"] * 2
    assert 990 < min(rows["tokens"]) <= max(rows["tokens"]) < train["long"].max_length
    assert train["long"].layout(rows, "long").columns["negatives"] == ("negative",)


def test_the_python_that_scores_a_folder_in_the_docs_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LIGHTNING_JV5_CACHE", str(tmp_path / "cache"))
    save_tiny_sentence_transformer("models/small")
    texts = tiny_texts(12, seed=10)
    rows = [{"text1": texts[row], "text2": texts[row + 6], "score": row} for row in range(6)]
    Path("sts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    page = (ROOT / "docs" / "evaluation.md").read_text().partition("## Without a Trainer")[2]
    scored, encoders, *_ = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    names: dict[str, Any] = {}
    exec(scored, names)
    printed = capsys.readouterr().out.splitlines()
    assert printed[-2].split() == ["task", "measure", "score", "others"]
    assert printed[-1].startswith("sts   spearman ")

    from sentence_transformers import SentenceTransformer

    write_adapter(Path("models/small/adapters/retrieval"), "models/small")
    names |= {"functools": functools, "embedder": Embedder("models/small")}
    names["model"] = SentenceTransformer("models/small", device="cpu")
    tasks = {"sts": STSTask(LocalFiles("sts.jsonl"))}
    for line, expected in zip(
        encoders.splitlines(), (Embedder("models/small", task="retrieval"), Embedder("models/small")), strict=True
    ):
        exec(line, names)
        [score] = evaluate(names["encode"], tasks, progress=False)
        assert score.values == pytest.approx(evaluate(expected.encode, tasks, progress=False)[0].values, abs=1e-6)


def test_the_quick_starts_model_embeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    save_tiny_sentence_transformer("models/student")
    [code] = blocks(ROOT / "docs" / "index.md", "python")
    exec(code.replace("truncate_dim=64", "truncate_dim=8"), {})
    assert capsys.readouterr().out.startswith("tensor([[")


def test_the_readmes_python_encodes_by_a_checkpoint_and_by_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LIGHTNING_JV5_CACHE", str(tmp_path / "cache"))
    write_config(tmp_path)
    main(["fit", "--config=tiny.yaml", "--name=small"])
    save_tiny_sentence_transformer("DIR")
    names: dict[str, Any] = {"lightning_jv5": lightning_jv5, "EmbeddingModule": EmbeddingModule}
    shapes = []
    for code in blocks(ROOT / "README.md", "python"):
        first, encode = code.replace("truncate_dim=64", "truncate_dim=8").splitlines()
        exec(first, names)
        shapes.append(tuple(eval(encode, names).shape))
    assert shapes == [(1, 8), (1, 1)]


def test_the_adapters_pages_python_switches_between_adapters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_assembled(tmp_path / "made", "bert")
    assemble([str(tmp_path / "made" / "retrieval")], "models/small")
    shutil.copytree(tmp_path / "made" / "clustering", "models/clustering")
    [code] = [block for block in blocks(ROOT / "docs" / "adapters.md", "python") if "load_adapter" in block]
    names: dict[str, Any] = {"lightning_jv5": lightning_jv5, "texts": ["the cat", "a red dog"]}
    exec(code, names)
    assert names["embedder"].tasks == ["retrieval", "clustering"]


def test_the_classes_of_ones_own_in_the_docs_train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("LIGHTNING_JV5_CACHE", str(tmp_path / "cache"))
    write_config(tmp_path)
    page = ROOT / "docs" / "extending.md"
    Path("my_project.py").write_text("\n\n".join(blocks(page, "python")))
    [config] = yaml_blocks(page)
    config["objective"]["terms"]["short"]["loss"]["init_args"]["dims"] = [32, 8]
    source = {"class_path": "my_project.Multiplication", "init_args": {"rows": 6}}
    mine = {"model": {"objective": config["objective"]}, "data": {"train": source}}
    Path("mine.yaml").write_text(yaml.safe_dump(mine))
    logger = "--trainer.logger=lightning.pytorch.loggers.CSVLogger"
    main(["fit", "--config=tiny.yaml", "--config=mine.yaml", logger, "--trainer.logger.save_dir=logs"])
    [metrics] = Path("logs").rglob("metrics.csv")
    assert {"train/hinge", "train/short"} <= set(metrics.read_text().splitlines()[0].split(","))


def test_the_distillation_beside_sentence_transformers_runs_and_is_exported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LIGHTNING_JV5_CACHE", str(tmp_path / "cache"))
    for name in ("student", "teacher"):
        save_tiny_sentence_transformer(f"models/{name}")
    for name in ("pairs.jsonl", "heldout.jsonl"):
        write_pairs(Path(name))
    page = ROOT / "docs" / "sentence_transformers.md"
    [code] = blocks(page, "python")
    exec(code, {})
    [command] = re.findall(r"python -m lightning_jv5 (export .*)", page.read_text())
    main(command.split())
    assert Path("models/distilled/modules.json").exists()
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--objective", type=Loss)
    [contrast] = yaml_blocks(page)
    built = parser.instantiate(parser.parse_object({"objective": contrast["model"]["objective"]})).objective
    assert (built.dims, built.loss.temperature.at(0)) == ((384, 96), 0.02)
