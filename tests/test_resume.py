import functools
import json
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.process_runs import finished, in_process, ranks_environment, resumable_run


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
    def once(**settings: Any) -> Path:
        folder = tmp_path_factory.mktemp("uninterrupted")
        assert run(folder, **settings) == 0
        return folder

    return once


def diary(folder: Path, rank: str = "") -> dict[int, Any]:
    """What each batch saw and gave; a batch that was trained on again after a kill counts as it was the last time."""
    entries = [json.loads(line) for line in (folder / f"diary{rank}.jsonl").read_text().splitlines()]
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
        (7, {"lora": True}),
        (7, {"lora": True, "accumulate": 4, "workers": 2}),  # in the middle of the second optimizer step
        (5, {"mixture": True}),
        (9, {"mixture": True, "workers": 2}),  # at the epoch's end
        (13, {"mixture": True, "workers": 3, "accumulate": 4, "lora": True, "start": "forkserver"}),
        (7, {"mixture": True, "limit": 0.67, "workers": 1}),  # what was prefetched for the first epoch is dropped
    ],
)
def test_a_killed_run_resumes_as_if_nothing_had_happened(
    tmp_path: Path, uninterrupted: Callable[..., Path], kill_before: int, settings: dict[str, Any]
) -> None:
    whole = uninterrupted(**{name: value for name, value in settings.items() if name not in ("workers", "start")})
    assert run(tmp_path, kill_before=kill_before, **settings) == -signal.SIGKILL
    assert not (tmp_path / "weights.pt").exists()
    assert run(tmp_path, resume=True, **settings) == 0
    assert diary(tmp_path) == diary(whole)
    batches = 18 if "mixture" in settings else 10
    assert len(diary(whole)) == {1.0: batches, 0.8: 8, 0.67: 12}[settings.get("limit", 1.0)]
    expected, resumed = (torch.load(folder / "weights.pt") for folder in (whole, tmp_path))
    assert all(torch.equal(resumed[name], weights) for name, weights in expected.items())


def test_a_renamed_data_module_does_not_lose_its_place(tmp_path: Path, uninterrupted: Callable[..., Path]) -> None:
    assert run(tmp_path, kill_before=7) == -signal.SIGKILL
    assert run(tmp_path, resume=True, renamed=True) == 0
    assert diary(tmp_path) == diary(uninterrupted())


def test_a_mixture_draws_every_kind_of_set(uninterrupted: Callable[..., Path]) -> None:
    assert {entry["dataset"] for entry in diary(uninterrupted(mixture=True)).values()} == {"pairs", "stream", "topics"}


def test_another_number_of_ranks_goes_on_with_the_same_rows(tmp_path: Path, uninterrupted: Callable[..., Path]) -> None:
    assert run(tmp_path, kill_before=7, mixture=True) == -signal.SIGKILL
    common = {"LIGHTNING_JV5_CACHE": str(tmp_path / "cache"), **ranks_environment(2)}
    processes = [
        in_process(
            partial(resumable_run, tmp_path, resume=True, mixture=True),
            environment={**common, "RANK": rank, "LOCAL_RANK": rank},
        )
        for rank in ("0", "1")
    ]
    assert finished(processes) == [0, 0]
    first, second = diary(tmp_path, "0"), diary(tmp_path, "1")
    whole = diary(uninterrupted(mixture=True))
    assert list(first) == list(second) == [batch for batch in whole if batch > 7]
    for batch in first:
        assert first[batch]["dataset"] == second[batch]["dataset"] == whole[batch]["dataset"]
        for what in ("tokens", "lengths"):
            assert first[batch][what] + second[batch][what] == whole[batch][what]


def test_other_data_are_refused_with_the_difference_named(tmp_path: Path) -> None:
    assert run(tmp_path, kill_before=3) == -signal.SIGKILL
    assert run(tmp_path, resume=True, batch_size=5) == 0
    message = (tmp_path / "error.txt").read_text()
    assert "trained on other data: batch_size of the data set 'train' was 4 and is 5" in message


def test_other_tuples_are_other_data(tmp_path: Path) -> None:
    assert run(tmp_path, kill_before=3, mixture=True) == -signal.SIGKILL
    assert run(tmp_path, resume=True, mixture=True, negatives=1) == 0
    assert "tuples of the data set 'topics' was" in (tmp_path / "error.txt").read_text()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda saved: saved.pop("data"), "does not say what data it was trained on"),
        (lambda saved: saved.pop("trained_batches"), "does not say how many batches it was trained on"),
        (lambda saved: saved.update(format=4), "format 4; this version of lightning_jv5 reads 3"),
    ],
)
def test_a_checkpoint_that_lacks_its_place_is_refused(
    tmp_path: Path, uninterrupted: Callable[..., Path], change: Callable[[dict[str, Any]], object], message: str
) -> None:
    checkpoint = torch.load(uninterrupted() / "checkpoints" / "last.ckpt", weights_only=True)
    change(checkpoint["lightning_jv5"])
    (tmp_path / "checkpoints").mkdir()
    torch.save(checkpoint, tmp_path / "checkpoints" / "last.ckpt")
    assert run(tmp_path, resume=True) == 0
    assert message in (tmp_path / "error.txt").read_text()
