import json
import runpy
import sys
import textwrap
from pathlib import Path

import pytest

from lightning_jv5 import load
from tests.tiny_configs import write_pairs
from tests.tiny_data import tiny_texts
from tests.tiny_models import save_tiny_sentence_transformer

EXAMPLES = Path(__file__).parent.parent / "examples"


def test_fit_from_python_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    model = save_tiny_sentence_transformer(tmp_path / "model")
    pairs = write_pairs(tmp_path / "pairs.jsonl")
    words = ["--model", model, "--layers", "0", "--pairs", str(pairs), "--steps", "2"]
    monkeypatch.setattr(sys, "argv", ["fit_from_python.py", *words])
    runpy.run_path(str(EXAMPLES / "fit_from_python.py"), run_name="__main__")
    assert "val/pairs/ndcg@10" in capsys.readouterr().out


def search_printed(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str
) -> list[str]:
    monkeypatch.chdir(folder)
    model = save_tiny_sentence_transformer(folder / "model")
    Path("corpus.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in tiny_texts(40, seed=1)))
    words = ("semantic_search.py", "--model", model, "--corpus", "corpus.jsonl", *words)
    monkeypatch.setattr(sys, "argv", list(words))
    runpy.run_path(str(EXAMPLES / "semantic_search.py"), run_name="__main__")
    return capsys.readouterr().out.splitlines()


def test_semantic_search_runs_and_tells_sizes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    printed = search_printed(tmp_path, monkeypatch, capsys, "the red cat", "a slow dog", "--depth=5", "--rows=30")
    assert printed[0].startswith("30 texts encoded in ")
    table = {line[:15].strip(): line[15:].split() for line in printed[3 : printed.index("", 3)]}
    assert [table[way][0] for way in ("floats", "bits", "bits, rescored")] == ["128", "4", "4"]
    assert table["floats"][3] == "100%"
    assert table.get("bits, faiss", table["bits"])[3].endswith("%")
    assert {"the red cat", "a slow dog"} < set(printed)
    assert sum(line.startswith("  5. ") for line in printed) == 2


def test_semantic_search_rescores_all_of_a_small_corpus_to_the_order_of_floats(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    printed = search_printed(tmp_path, monkeypatch, capsys, "the red cat", "--rows=8", "--depth=2", "--dim=12")
    assert [line.split()[-1] for line in printed if line.startswith(("floats", "bits, rescored"))] == ["100%", "100%"]
    expected = load("model", "cpu", truncate_dim=12)
    texts = tiny_texts(40, seed=1)[:8]
    best = expected.similarity(expected.encode_query("the red cat"), expected.encode_document(texts))[0].topk(2).indices
    assert [line[5:] for line in printed[-2:]] == [textwrap.shorten(texts[row], 100) for row in best.tolist()]
