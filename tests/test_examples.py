import runpy
import sys
from pathlib import Path

import pytest

from tests.tiny_configs import write_pairs
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
