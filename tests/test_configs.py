from pathlib import Path

import pytest

from lightning_jv5.cli import main
from lightning_jv5.config_files import config_names, packaged_configs

# The recipes of the paper train in test_jina_configs.py, the stages of small_recipe.yaml in test_recipe.py; each of the
# two names all of its configs. evaluate.yaml, which trains nothing, scores models in test_evaluate_cli.py. Overlays are
# no runs of their own
ELSEWHERE = ("jina_v5_", "trainer/", "small_", "evaluate.yaml")
RUNS = [name for name in config_names(packaged_configs()) if not name.startswith(ELSEWHERE)]
TINY_DOCSTRINGS = {"packages": "[jsonargparse, fsspec, lightning_utilities]", "heldout": "20"}


@pytest.mark.parametrize("name", RUNS)
def test_shipped_config_trains(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    docstrings = [
        f"--data.{where}.{key}={value}"
        for where in ("train", "val.docstrings.pairs")
        for key, value in TINY_DOCSTRINGS.items()
    ]
    main(["fit", f"--config={name}", *docstrings, "--data.train.rows=64", "--trainer.max_steps=1", "--name=shipped"])
    assert (tmp_path / "runs" / "shipped" / "version_0" / "summary.json").is_file()
