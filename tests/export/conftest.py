import contextlib
import functools
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
from sentence_transformers.util.quantization import quantize_embeddings
from torch import Tensor

from lightning_jv5 import Embedder
from lightning_jv5.cli import main
from lightning_jv5.encoder import Encoder
from lightning_jv5.export import convert, export
from tests.export import foreign_loading
from tests.export.assembled import FAMILIES, PROMPTS, write_assembled
from tests.export.foreign_loading import IDS, OPTIONS
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

    def check(self, loaded: str, expected: str) -> None:
        """Compare all that was computed of one task: floats, and their codes, of which int8 may round apart."""
        for role in ("query", "document"):
            for name, most in {"": 1e-5, "/short": 1e-5, "/bits": 0, "/signed_bits": 0, "/int8": 1}.items():
                case = f"{role}{name}"
                found, ours = self.found[f"{loaded}/{case}"], self.expected[f"{expected}/{case}"]
                assert found.dtype == ours.dtype
                torch.testing.assert_close(found.float(), ours.float(), rtol=0, atol=most, msg=f"{loaded}: {case}")


def computed_here(family: str, assembled: str) -> dict[str, Tensor]:
    expected: dict[str, Tensor] = {}
    for task in PROMPTS:
        embedder = Embedder(assembled, task=task)
        encode = functools.partial(Encoder(embedder, "cpu").encode, TEXTS, convert_to_tensor=True)
        for role in ("query", "document"):
            cases = {name: encode(role, **options) for name, options in OPTIONS.items() if name != "/int8"}
            # Its ranges are those of the texts of a call, which ours are not
            cases["/int8"] = torch.tensor(quantize_embeddings(cases[""].numpy(), precision="int8"))
            expected |= {f"{family}/{task}/{role}{name}": tensor for name, tensor in cases.items()}
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
        jobs.append([family, "assembled", None, str(moved / family / "assembled")])
        for kept in ("switching", "assembled"):
            jobs += [[family, f"peft-{kept}", task, str(moved / family / kept)] for task in tasks]
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
    plan.write_text(json.dumps({"jobs": jobs, "texts": TEXTS, "prompts": PROMPTS}))
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
