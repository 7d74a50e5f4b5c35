import os
import zipfile
from pathlib import Path

import pytest

from lightning_jv5.runs import choose_run, next_version


def checkpoint(runs: Path, version: int, name: str, at: int, *, complete: bool = True) -> Path:
    path = runs / "small" / f"version_{version}" / "checkpoints" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("data", "x" * 1000)
    if not complete:
        path.write_bytes(path.read_bytes()[:500])
    os.utime(path, (at, at))
    return path


def test_a_new_run_gets_the_version_after_the_highest(tmp_path: Path) -> None:
    for version in (0, 2, 10):
        (tmp_path / "small" / f"version_{version}").mkdir(parents=True)
    (tmp_path / "small" / "version_notes").mkdir()
    assert next_version(tmp_path / "small") == 11
    run = choose_run(tmp_path, "small", None)
    assert (run.folder, run.checkpoint, run.resumed) == (tmp_path / "small" / "version_11", None, False)


@pytest.mark.parametrize("word", ["last", "last-or-new"])
def test_last_is_the_newest_complete_checkpoint_of_any_version_in_its_own_folder(tmp_path: Path, word: str) -> None:
    checkpoint(tmp_path, 3, "last.ckpt", at=100)
    newest = checkpoint(tmp_path, 1, "best.ckpt", at=200)
    checkpoint(tmp_path, 2, "last.ckpt", at=300, complete=False)
    run = choose_run(tmp_path, "small", word)
    assert (run.folder, run.checkpoint, run.resumed) == (tmp_path / "small" / "version_1", newest, True)


def test_last_passes_over_averaged_weights_which_hold_no_optimizer(tmp_path: Path) -> None:
    newest = checkpoint(tmp_path, 0, "last.ckpt", at=100)
    averaged = checkpoint(tmp_path, 0, "averaged.ckpt", at=200)
    assert choose_run(tmp_path, "small", "last").checkpoint == newest
    assert choose_run(tmp_path, "small", str(averaged)).checkpoint == averaged


def test_last_is_an_error_where_there_is_none_and_last_or_new_starts(tmp_path: Path) -> None:
    checkpoint(tmp_path, 0, "last.ckpt", at=1, complete=False)
    with pytest.raises(ValueError, match=r"no complete checkpoint in .*small/version_\*/checkpoints.*last-or-new"):
        choose_run(tmp_path, "small", "last")
    run = choose_run(tmp_path, "small", "last-or-new")
    assert (run.folder.name, run.checkpoint) == ("version_1", None)


def test_a_path_starts_a_new_version_from_that_file(tmp_path: Path) -> None:
    file = checkpoint(tmp_path, 0, "last.ckpt", at=1)
    run = choose_run(tmp_path, "small", str(file))
    assert (run.folder.name, run.checkpoint, run.resumed) == ("version_1", file, False)


def test_a_path_that_is_no_whole_checkpoint_is_refused(tmp_path: Path) -> None:
    cut = checkpoint(tmp_path, 0, "last.ckpt", at=1, complete=False)
    with pytest.raises(ValueError, match="cut off or no checkpoint"):
        choose_run(tmp_path, "small", str(cut))
    with pytest.raises(ValueError, match=r"nothing.ckpt: no such file. Checkpoints of this run name: .*last.ckpt"):
        choose_run(tmp_path, "small", str(tmp_path / "nothing.ckpt"))
