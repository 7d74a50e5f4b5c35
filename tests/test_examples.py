import functools
import json
import runpy
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from lightning_jv5 import RetrievalTask, data, load
from lightning_jv5.data import LocalFiles
from tests.tiny_configs import write_config, write_pairs
from tests.tiny_data import tiny_texts
from tests.tiny_models import TEXTS, save_tiny_sentence_transformer

EXAMPLES = Path(__file__).parent.parent / "examples"
PACKAGES = ["jsonargparse", "fsspec", "torchmetrics"]


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run_example(monkeypatch: pytest.MonkeyPatch, name: str, *words: str) -> None:
    monkeypatch.setattr(sys, "argv", [name, *words])
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")


def tiny_fit() -> list[str]:
    """Options that most examples share: a tiny model, and eight pairs."""
    model = save_tiny_sentence_transformer("model")
    return ["--model", model, "--layers", "0", "--pairs", str(write_pairs(Path("pairs.jsonl")))]


def scored_fit() -> list[str]:
    """And three pairs to score on."""
    return [*tiny_fit(), "--held-out", str(write_pairs(Path("others.jsonl"), count=3))]


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_an_example_is_short_and_has_a_test(path: Path) -> None:
    assert len(path.read_text().splitlines()) < 80
    assert f'"{path.name}"' in Path(__file__).read_text()


def test_fit_from_python_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    run_example(monkeypatch, "fit_from_python.py", *scored_fit(), "--steps", "2")
    assert "val/pairs/ndcg@10" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["fit_from_python.py", "custom_callback.py"])
def test_an_example_scores_on_other_pairs_than_it_trains_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    with pytest.raises(SystemExit):
        run_example(monkeypatch, name, *tiny_fit())
    assert "give both --pairs and --held-out" in capsys.readouterr().err
    read: list[str | list[str]] = []
    opened = RetrievalTask.__init__

    def noting(task: RetrievalTask, source: LocalFiles, *rest: Any, **options: Any) -> None:
        read.append(source.paths)
        opened(task, source, *rest, **options)

    monkeypatch.setattr(RetrievalTask, "__init__", noting)
    run_example(monkeypatch, name, *scored_fit(), "--steps", "1")
    assert read == [["others.jsonl"]]


def test_extra_loss_term_is_part_of_the_loss(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_example(monkeypatch, "extra_loss_term.py", *tiny_fit(), "--steps", "1", "--weight", "0.5")
    shown = dict(line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("train/"))
    loss, distill, uniformity = (float(shown[f"train/{name}"]) for name in ("loss", "distill", "uniformity"))
    assert uniformity < 0
    assert loss == pytest.approx(distill + 0.5 * uniformity, abs=2e-4)


def test_custom_callback_writes_a_table_at_each_validation(monkeypatch: pytest.MonkeyPatch) -> None:
    run_example(monkeypatch, "custom_callback.py", *scored_fit(), "--steps", "2")
    before, after = (
        json.loads(Path(f"runs/custom_callback/texts/watched.step-{step}.json").read_text()) for step in (0, 2)
    )
    assert len(before["cosines"]) == 3
    assert before["cosines"] != after["cosines"]


def test_own_jsonl_data_trains_on_both_sets(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = save_tiny_sentence_transformer("model")
    run_example(monkeypatch, "own_jsonl_data.py", "--model", model, "--folder", "data", "--steps", "6")
    assert len(Path("data/articles.jsonl").read_text().splitlines()) == 9
    assert "val/articles/ndcg@10" in capsys.readouterr().out
    logged = b"".join(events.read_bytes() for events in Path("lightning_logs").rglob("events.*"))
    assert b"sets/articles/loss" in logged
    assert b"sets/ratings/loss" in logged


def test_custom_task_scores_every_view(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    model = save_tiny_sentence_transformer("model")
    near, far = TEXTS[0], TEXTS[3]
    rows = [{"query": near, "document": near, "negative": far}, {"query": near, "document": far, "negative": near}] * 2
    Path("triplets.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run_example(monkeypatch, "custom_task.py", "--model", model, "--triplets", "triplets.jsonl")
    shown = capsys.readouterr().out
    assert "triplets  accuracy  0.5000" in shown
    assert "binary" in shown


def test_custom_task_leaves_files_of_the_current_folder_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = save_tiny_sentence_transformer("model")
    Path("triplets.jsonl").write_text("mine")
    few = functools.partial(data.Docstrings, packages=PACKAGES, heldout=20)
    monkeypatch.setattr(data, "Docstrings", few)
    run_example(monkeypatch, "custom_task.py", "--model", model)
    assert "triplets  accuracy  " in capsys.readouterr().out
    assert Path("triplets.jsonl").read_text() == "mine"
    assert {path.name for path in Path().iterdir()} == {"model", "triplets.jsonl"}


def test_clustering_plot_draws(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    model = save_tiny_sentence_transformer("model")
    words = ["--packages", *PACKAGES, "--per-package", "8", "--output", "clusters.png"]
    run_example(monkeypatch, "clustering_plot.py", "--model", model, *words)
    assert "of 24 texts from 3 packages" in capsys.readouterr().out
    assert Path("clusters.png").read_bytes().startswith(b"\x89PNG")


def test_tensorboard_walkthrough_says_what_was_logged(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = str(write_config(Path()))
    run_example(monkeypatch, "tensorboard_walkthrough.py", "--config", config, "--task", "pairs", "--steps", "2")
    shown = capsys.readouterr().out
    assert "train/loss = " in shown
    assert "val/pairs/ndcg@10 = " in shown
    assert "vectors.tsv" in shown


def searched(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str) -> list[str]:
    model = save_tiny_sentence_transformer("model")
    Path("corpus.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in tiny_texts(40, seed=1)))
    run_example(monkeypatch, "semantic_search.py", "--model", model, "--corpus", "corpus.jsonl", *words)
    return capsys.readouterr().out.splitlines()


def test_semantic_search_runs_and_tells_sizes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    printed = searched(monkeypatch, capsys, "the red cat", "a slow dog", "--depth=5", "--rows=30")
    assert printed[0].startswith("30 texts encoded in ")
    table = {line[:15].strip(): line[15:].split() for line in printed[3 : printed.index("", 3)]}
    assert [table[way][0] for way in ("floats", "bits", "bits, rescored", "bits, faiss")] == ["128", "4", "4", "4"]
    assert table["floats"][3] == "100%"
    assert table["bits, faiss"][3] == table["bits"][3]
    assert {"the red cat", "a slow dog"} < set(printed)
    assert sum(line.startswith("  5. ") for line in printed) == 2


def test_semantic_search_rescores_all_of_a_small_corpus_to_the_order_of_floats(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    printed = searched(monkeypatch, capsys, "the red cat", "--rows=8", "--depth=2", "--dim=12")
    assert [line.split()[-1] for line in printed if line.startswith(("floats", "bits, rescored"))] == ["100%", "100%"]
    expected = load("model", "cpu", truncate_dim=12)
    texts = tiny_texts(40, seed=1)[:8]
    best = expected.similarity(expected.encode_query("the red cat"), expected.encode_document(texts))[0].topk(2).indices
    assert [line[5:] for line in printed[-2:]] == [textwrap.shorten(texts[row], 100) for row in best.tolist()]
