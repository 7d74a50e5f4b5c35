import json
import os
import subprocess
import sys
import time
import venv
import zipfile
from pathlib import Path

import pytest

from lightning_jv5 import __version__

ROOT = Path(__file__).parent.parent

# Deselected by default: it installs everything anew. Run it with: python -m pytest -m wheel
pytestmark = [pytest.mark.wheel, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run([sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT], folder)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a new environment that holds the wheel and knows nothing of the checkout."""
    folder = tmp_path_factory.mktemp("venv")
    venv.create(folder, with_pip=True, symlinks=True)
    interpreter = folder / "bin" / "python"
    install = ["-m", "pip", "install", "--quiet", "-c", ROOT / "constraints.txt", f"{wheel}[demo]"]
    run([interpreter, *install], folder, timeout=900)
    return interpreter


def run(command: list[str | Path], folder: Path, timeout: int = 300) -> str:
    environment = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "VIRTUAL_ENV"}}
    environment |= {"LIGHTNING_JV5_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "2"}
    finished = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=timeout, check=False
    )
    assert finished.returncode == 0, f"{command}\n{finished.stdout[-3000:]}\n{finished.stderr[-6000:]}"
    return finished.stdout


def test_wheel_holds_the_package_its_configs_and_nothing_else(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    configs = {path.relative_to(ROOT).as_posix() for path in (ROOT / "configs").rglob("*.yaml")}
    assert configs
    assert {name for name in names if name.endswith(".yaml")} == {f"lightning_jv5/{path}" for path in configs}
    assert "lightning_jv5/py.typed" in names
    assert {f"lightning_jv5/search/page/{name}" for name in ("index.html", "page.css", "page.js")} <= names
    about = f"lightning_jv5-{__version__}.dist-info"
    assert f"{about}/licenses/LICENSE" in names
    assert {name.split("/")[0] for name in names} == {"lightning_jv5", about}


def test_installed_version_is_printed(python: Path, tmp_path: Path) -> None:
    assert run([python, "-m", "lightning_jv5", "--version"], tmp_path).split() == ["lightning_jv5", __version__]
    assert run([python.parent / "lightning-jv5", "--version"], tmp_path).split()[-1] == __version__


def test_installed_wheel_trains_small_config(python: Path, tmp_path: Path) -> None:
    where = run([python, "-c", "import lightning_jv5; print(lightning_jv5.__file__)"], tmp_path)
    assert not Path(where.strip()).is_relative_to(ROOT)
    rows = "--data.train.rows=64"  # the other 3,936 would only be embedded by the teacher
    command = [python, "-m", "lightning_jv5", "fit", "--config", "small.yaml", "--trainer.max_steps=2", rows]
    start = time.perf_counter()
    run(command, tmp_path)
    took = time.perf_counter() - start
    (summary,) = tmp_path.glob("runs/*/version_0/summary.json")
    values = json.loads(summary.read_text())
    assert set(values) == {"metric", "rows", "seconds"}
    assert values["metric"]
    assert {row["model"] for row in values["rows"]} == {"teacher", "student_before", "student_after"}
    assert 0 < values["seconds"] < took
