import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from torch import distributed as dist

from lightning_jv5.process_group import leave_process_group
from tests.process_runs import finished, in_process, ranks_environment
from tests.tiny_configs import write_config

CLI_THEN_GROUP = """
import os
from pathlib import Path
from torch import distributed as dist
from lightning_jv5.cli import main

main()
Path(f"after-{os.environ.get('LOCAL_RANK', 0)}").write_text(f"in a group: {dist.is_initialized()}")
"""


def test_a_run_of_several_processes_leaves_its_group_before_it_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_config(tmp_path)
    script = tmp_path / "train.py"
    script.write_text(CLI_THEN_GROUP)
    devices = ["--trainer.devices=2", "--trainer.strategy=ddp", "--trainer.accelerator=cpu"]
    command = [sys.executable, str(script), "fit", "--config=tiny.yaml", *devices]  # Lightning starts the second
    path = os.pathsep.join(sys.path)
    ended = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert "All distributed processes registered. Starting with 2 processes" in ended.stderr
    assert [(tmp_path / f"after-{rank}").read_text() for rank in (0, 1)] == ["in a group: False"] * 2


def come_late(folder: Path) -> None:
    dist.init_process_group("gloo")
    late = folder / "late"
    if dist.get_rank() == 1:
        time.sleep(0.5)
        late.touch()
    leave_process_group()
    assert late.exists()
    assert not dist.is_initialized()


def test_a_rank_leaves_once_all_do(tmp_path: Path) -> None:
    environment = ranks_environment(2)
    assert finished(
        [in_process(come_late, tmp_path, environment={**environment, "RANK": rank}) for rank in ("0", "1")]
    ) == [0, 0]
