import contextlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from lightning_jv5 import Embedder
from lightning_jv5.cli import main
from lightning_jv5.export import convert, export
from tests.export import foreign_loading
from tests.export.assembled import FAMILIES, PROMPTS, write_assembled
from tests.export.foreign_loading import DIM, IDS
from tests.stages import write_stages
from tests.tiny_models import TEXTS


@dataclass
class Stages:
    """A folder in which two stages have run and handed over."""

    folder: Path

    @property
    def model(self) -> str:
        return str(self.folder / "models" / "distill")

    def adapter(self, name: str) -> str:
        return str(self.folder / "models" / name)

    def checkpoint(self, name: str) -> str:
        return str(self.folder / "runs" / name / "version_0" / "checkpoints" / "last.ckpt")


@pytest.fixture(scope="session")
def stages(tmp_path_factory: pytest.TempPathFactory) -> Stages:
    """Distil, export, train two adapters from that, export them."""
    return run_stages(tmp_path_factory.mktemp("stages"))


def run_stages(folder: Path) -> Stages:
    """Run them in a folder."""
    done = Stages(folder)
    with contextlib.chdir(folder):
        write_stages(folder)
        main(["fit", "--config=distill.yaml"])
        export(done.checkpoint("distill"), done.model)
        for name, seed in (("retrieval", 1), ("clustering", 2)):
            adapter = f"--model.student.adapter.name={name}"
            main(
                [
                    "fit",
                    "--config=adapter.yaml",
                    f"--from={done.model}",
                    f"--name={name}",
                    adapter,
                    f"--seed_everything={seed}",
                ]
            )
            export(done.checkpoint(name), done.adapter(name))
    return done


@dataclass
class Converted:
    """Models of every family in every layout, as this package and as others compute them.

    Everything is loaded after the folders were moved, and what they were made from is gone.
    """

    folder: Path
    expected: dict[str, Tensor]
    found: dict[str, Tensor]

    def layout(self, family: str, name: str) -> Path:
        return self.folder / family / name


def computed_here(family: str, assembled: str) -> dict[str, Tensor]:
    expected = {}
    for task in PROMPTS:
        embedder = Embedder(assembled, task=task)
        for role in ("query", "document"):
            expected[f"{family}/{task}/{role}"] = embedder.encode(TEXTS, role)
        expected[f"{family}/{task}/short"] = embedder.encode(TEXTS, truncate_dim=DIM)
        with torch.no_grad():
            expected[f"{family}/{task}/tokens"] = embedder.backbone(input_ids=torch.tensor(IDS)).last_hidden_state
    return expected


@pytest.fixture(scope="session")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Converted:
    made, moved = tmp_path_factory.mktemp("made"), tmp_path_factory.mktemp("moved") / "elsewhere"
    expected: dict[str, Tensor] = {}
    jobs: list[list[str | None]] = []
    tasks = [task for task in PROMPTS if task is not None]
    for family in FAMILIES:
        (made / family).mkdir()
        assembled = write_assembled(made / family, family)
        expected |= computed_here(family, assembled)
        layouts = {f"merged-{task}": ("merged", task) for task in tasks} | {"switching": ("switching", None)}
        layouts |= {"jina_v5": ("jina_v5", None)} if family in ("qwen3", "eurobert") else {}
        for name, (layout, task) in layouts.items():
            convert(assembled, str(made / "out" / family / name), layout, task=task)
            one_by_one = tasks if layout == "jina_v5" else [task]
            jobs += [[family, layout, each, str(moved / family / name)] for each in one_by_one]
        jobs += [[family, "peft", task, str(moved / family / "switching")] for task in tasks]
    shutil.move(made / "out", moved)
    for family in FAMILIES:
        shutil.move(made / family / "assembled", moved / family / "assembled")
    shutil.rmtree(made)
    snapshot = moved / "cache" / "hub" / "models--ada--tiny" / "snapshots" / ("0" * 40)
    shutil.copytree(moved / "eurobert" / "switching", snapshot)
    (snapshot.parent.parent / "refs").mkdir()
    (snapshot.parent.parent / "refs" / "main").write_text("0" * 40)
    jobs.append(["eurobert", "hub", None, "ada/tiny"])
    plan, output = moved / "jobs.json", moved / "found.safetensors"
    plan.write_text(json.dumps({"jobs": jobs, "texts": TEXTS}))
    run_without_lightning_jv5([str(Path(foreign_loading.__file__)), str(plan), str(output)], moved)
    return Converted(moved, expected, load_file(output))


def run_without_lightning_jv5(words: list[str], folder: Path) -> str:
    """Run Python where this package is not on the path; returns what it printed."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment |= {"HF_HOME": str(folder / "cache"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
