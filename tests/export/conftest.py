import contextlib
from dataclasses import dataclass
from pathlib import Path

import pytest

from lightning_jv5.cli import main
from lightning_jv5.export import export
from tests.stages import write_stages


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
