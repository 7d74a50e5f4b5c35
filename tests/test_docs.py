"""What the README and the docs show is what works."""

import ast
import functools
import importlib
import inspect
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from jsonargparse import ArgumentParser

import lightning_jv5
from lightning_jv5 import ClusteringTask, Embedder, STSTask
from lightning_jv5.cli import COMMANDS, main
from lightning_jv5.config_files import config_names, packaged_configs
from lightning_jv5.data import LocalFiles, TrainingSet
from lightning_jv5.data_commands import FUNCTIONS
from lightning_jv5.losses import EmbeddingBatch, Loss, Objective
from lightning_jv5.tasks import evaluate
from tests.models.tiny_adapters import write_adapter
from tests.tiny_beir import write_beir
from tests.tiny_configs import write_config, write_pairs
from tests.tiny_data import tiny_texts
from tests.tiny_models import save_tiny_sentence_transformer

ROOT = Path(__file__).parent.parent
MAIN_METRICS = {
    "scifact": "ndcg@10",
    "candidates": "map@1000",
    "similarity": "spearman",
    "duplicates": "ap",
    "translations": "f1",
    "topics": "v_measure",
    "intents": "accuracy",
}


def yaml_blocks(path: Path) -> list[Any]:
    return [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", path.read_text(), re.DOTALL)]


def test_the_readmes_own_config_goes_on_top_of_the_packaged_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    [mine] = yaml_blocks(ROOT / "README.md")
    Path("mine.yaml").write_text(yaml.safe_dump(mine, sort_keys=False))
    with pytest.raises(SystemExit) as ended:
        main(["fit", "--config=small.yaml", "--config=mine.yaml", "--print_config"])
    assert ended.value.code == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed["data"]["init_args"]["batch_size"] == mine["data"]["batch_size"]
    teacher = printed["model"]["init_args"]["teacher"]
    assert teacher["init_args"]["path"] == mine["model"]["teacher"]["path"]


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


@pytest.mark.parametrize(
    "page",
    [
        "README.md",
        *(f"docs/{page}.md" for page in ("adapters", "deploy", "index", "recipe", "scaling", "sentence_transformers")),
    ],
)
def test_the_commands_of_a_page_name_what_there_is(page: str) -> None:
    commands = re.findall(r"python -m lightning_jv5 (\w+)((?:[^`\n]|\\\n)*)", (ROOT / page).read_text())
    assert commands
    for command, words in commands:
        assert command in COMMANDS
        for name in re.findall(r"--config[= ](\S+\.yaml)", words):
            assert name in {"mine.yaml", "embed.yaml"} or name in config_names(packaged_configs())
        if command in FUNCTIONS:
            module, _, function = FUNCTIONS[command].partition(":")
            known = {*inspect.signature(getattr(importlib.import_module(module), function)).parameters, "config"}
            assert set(re.findall(r"--(\w+)", words)) <= known


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


def blocks(path: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", path.read_text(), re.DOTALL)


@functools.cache
def message_patterns() -> list[re.Pattern[str]]:
    """Every sentence in the package's code that could be an error, with its f-string fields open."""
    patterns = []
    for path in (ROOT / "lightning_jv5").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr | ast.Constant):
                parts = node.values if isinstance(node, ast.JoinedStr) else [node]
                texts = [str(part.value) if isinstance(part, ast.Constant) else None for part in parts]
                if sum(len(text) for text in texts if text is not None) >= 25:
                    patterns.append(re.compile("".join(".*" if text is None else re.escape(text) for text in texts)))
    return patterns


@pytest.mark.parametrize("message", re.findall(r"^> ``(.+)``$", (ROOT / "docs" / "faq.md").read_text(), re.MULTILINE))
def test_an_error_in_the_docs_is_still_raised(message: str) -> None:
    assert any(pattern.fullmatch(message) for pattern in message_patterns()), message


def test_every_public_name_is_in_the_reference() -> None:
    listed = {
        name.replace(f".{name.rpartition('.')[2]}.{name.rpartition('.')[2]}", f".{name.rpartition('.')[2]}")
        for page in (ROOT / "docs" / "api").glob("*.md")
        for name in re.findall(r"^::: (\S+)$", page.read_text(), re.MULTILINE)
    }
    shown = {name.rpartition(".")[2] for name in listed}
    for package in ("losses", "data", "models", "metrics", "tasks", "callbacks", "export"):
        code = (ROOT / "lightning_jv5" / package / "__init__.py").read_text()
        missing = {alias.asname for node in ast.walk(ast.parse(code)) for alias in getattr(node, "names", [])} - shown
        assert not missing, f"docs/api lacks {sorted(missing)} of lightning_jv5.{package}"
    assert set(lightning_jv5.__all__) - {"__version__"} <= shown


@pytest.mark.parametrize("page", sorted((ROOT / "docs" / "api").glob("*.md")), ids=lambda page: page.stem)
def test_what_the_reference_lists_can_be_imported(page: Path) -> None:
    for name in re.findall(r"^::: (\S+)$", page.read_text(), re.MULTILINE):
        module, _, member = name.rpartition(".")
        assert hasattr(importlib.import_module(module), member), name


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda page: page.stem)
def test_the_links_of_a_page_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)(?:#[^)]*)?\)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_every_page_is_in_the_sites_navigation() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text()
    for page in (ROOT / "docs").rglob("*.md"):
        assert str(page.relative_to(ROOT / "docs")) in navigation


@pytest.mark.parametrize("page", ["index", "scaling"])
def test_the_settings_of_a_page_go_on_top_of_the_packaged_ones(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    [mine] = yaml_blocks(ROOT / "docs" / f"{page}.md")
    Path("mine.yaml").write_text(yaml.safe_dump(mine, sort_keys=False))
    with pytest.raises(SystemExit) as ended:
        main(["fit", "--config=small.yaml", "--config=mine.yaml", "--print_config"])
    assert ended.value.code == 0
    printed = yaml.safe_load(capsys.readouterr().out)["trainer"]
    strategy = mine["trainer"].pop("strategy", None)
    assert mine["trainer"].items() <= printed.items()
    assert strategy is None or strategy["init_args"].items() <= printed["strategy"]["init_args"].items()


def test_the_quick_starts_model_embeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    save_tiny_sentence_transformer("models/student")
    [code] = blocks(ROOT / "docs" / "index.md", "python")
    exec(code.replace("truncate_dim=64", "truncate_dim=8"), {})
    assert capsys.readouterr().out.startswith("tensor([[")


def test_the_memory_table_is_what_the_formula_gives() -> None:
    weights = {"small": (596e6, 20.2e6, 1024), "nano": (212e6, 6.7e6, 768)}
    page = (ROOT / "docs" / "scaling.md").read_text()
    rows = re.findall(
        r"^\| (small|nano), (\w+)(?: adapter)? \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]*) ?\|$", page, re.M
    )
    assert len(rows) == 6
    for model, stage, *shown in rows:
        base, adapter, dim = weights[model]
        projection = 0 if stage == "classification" else 2560 * (dim + 1)
        trained, frozen = (base, 0) if stage == "distillation" else (adapter, base)
        student = 16 * (trained + projection) + 4 * frozen
        teacher = 0 if stage == "classification" else 2 * 4.02e9
        expected = [f"{value / 1e9:.1f}" for value in (student, teacher, student + teacher, student)]
        assert shown == (expected if teacher else [*expected[:3], ""]), (model, stage)


def test_the_cost_of_teacher_vectors_in_the_docs_adds_up() -> None:
    page = (ROOT / "docs" / "scaling.md").read_text()
    tokens = 1e8 * 2 * 128
    hours = tokens * 2 * 4e9 / 4e14 / 3600
    drawn = 50_000 * 4_096
    for shown in (
        f"| {tokens:.1e} |".replace("e+", "e"),
        f"| {hours:.0f} |",
        f"| {hours / 8:.0f} |",
        f"| {1e8 * 2 * 2560 * 2 / 1e12:.2f} TB |",
        f"| {1e8 * 2 * 2564 / 1e12:.2f} TB |",
        f"| {4096 * 10_240 / 1e6:.0f} MB |",
        f"save {round(hours * (drawn / 1e8 - 1), -1):.0f} GPU hours of {round(hours * drawn / 1e8, -1):.0f}",
    ):
        assert shown in page


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


@pytest.mark.parametrize("path", sorted((ROOT / "docs").rglob("*.md")), ids=lambda path: path.stem)
def test_every_table_is_whole(path: Path) -> None:
    prose = re.sub(r"^```.*?^```$", "", path.read_text(), flags=re.DOTALL | re.MULTILINE)
    for table in re.findall(r"(?:^\|.*\n)+", prose, re.MULTILINE):
        assert re.match(r"\|.*\n\|[-:| ]+\n\|", table), f"rows without a header: {table}"


def test_the_names_of_both_libraries_in_the_table_exist() -> None:
    import sentence_transformers
    from sentence_transformers.sentence_transformer import evaluation, losses, training_args

    theirs = {"losses": losses, "evaluation": evaluation, "BatchSamplers": training_args.BatchSamplers}
    theirs["MultiDatasetBatchSamplers"] = training_args.MultiDatasetBatchSamplers
    page = (ROOT / "docs" / "sentence_transformers.md").read_text()
    table = page.partition("|---|---|---|\n")[2].partition("\n\n")[0]
    for row in table.splitlines():
        their_cell, our_cell = row.split("|")[1:3]
        for name in re.findall(r"`([\w.]+)`", their_cell):
            home, _, member = name.rpartition(".")
            assert hasattr(theirs.get(home, sentence_transformers), member), name
        for name in re.findall(r"`((?:losses\.|data\.)?[A-Z]\w+)`", our_cell):
            home, _, member = name.rpartition(".")
            assert hasattr(importlib.import_module(f"lightning_jv5.{home}".rstrip(".")), member), name


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
