import functools
import json
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.process_runs import in_process, resumable_run


def run(folder: Path, **settings: Any) -> int | None:
    folder.mkdir(exist_ok=True)
    environment = {"LIGHTNING_JV5_CACHE": str(folder / "cache")}
    process = in_process(partial(resumable_run, folder, **settings), environment=environment)
    process.join()
    code: int | None = process.exitcode
    return code


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Run without a kill; once for equal settings, as loader processes must not change anything."""

    @functools.cache
    def once(accumulate: int = 1, limit: float = 1.0) -> Path:
        folder = tmp_path_factory.mktemp("uninterrupted")
        assert run(folder, accumulate=accumulate, limit=limit) == 0
        return folder

    return once


def diary(folder: Path) -> dict[int, Any]:
    """What each batch saw and gave; a batch that was trained on again after a kill counts as it was the last time."""
    entries = [json.loads(line) for line in (folder / "diary.jsonl").read_text().splitlines()]
    return {entry.pop("batch"): entry for entry in entries}


@pytest.mark.parametrize(
    ("kill_before", "settings"),
    [
        (3, {}),
        (7, {}),
        (5, {}),  # at the epoch's end
        (7, {"workers": 2}),
        (5, {"workers": 2}),
        (8, {"accumulate": 2}),  # in the middle of an accumulated step
        (7, {"accumulate": 2}),
        (6, {"limit": 0.8}),  # epochs that are shorter than the data
    ],
)
def test_a_killed_run_resumes_as_if_nothing_had_happened(
    tmp_path: Path, uninterrupted: Callable[..., Path], kill_before: int, settings: dict[str, Any]
) -> None:
    whole = uninterrupted(**{name: value for name, value in settings.items() if name != "workers"})
    assert run(tmp_path, kill_before=kill_before, **settings) == -signal.SIGKILL
    assert not (tmp_path / "weights.pt").exists()
    assert run(tmp_path, resume=True, **settings) == 0
    assert diary(tmp_path) == diary(whole)
    assert len(diary(whole)) == (8 if "limit" in settings else 10)
    expected, resumed = (torch.load(folder / "weights.pt") for folder in (whole, tmp_path))
    assert all(torch.equal(resumed[name], weights) for name, weights in expected.items())


def test_a_renamed_data_module_does_not_lose_its_place(tmp_path: Path, uninterrupted: Callable[..., Path]) -> None:
    assert run(tmp_path, kill_before=7) == -signal.SIGKILL
    assert run(tmp_path, resume=True, renamed=True) == 0
    assert diary(tmp_path) == diary(uninterrupted())
