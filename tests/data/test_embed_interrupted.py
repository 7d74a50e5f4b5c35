"""Folders of vectors that are begun and not finished, and that several processes write."""

import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_jv5.data import LocalFiles
from lightning_jv5.data.vector_columns import vectors
from lightning_jv5.data.vector_manifest import read_manifest
from tests.data.embed_runs import (
    COLUMNS,
    OtherRows,
    TinyTuples,
    WatchedTeacher,
    contents,
    embed,
    embed_run,
    read,
    watched_teacher,
)
from tests.losses.loss_on_ranks import joined
from tests.process_runs import in_process


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIGHTNING_JV5_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """The folder of an uninterrupted run of one process, and how many texts it encoded."""
    folder = tmp_path_factory.mktemp("whole")
    embed_run(folder, "out", cached_texts=0)
    return folder / "out", int((folder / "count0.txt").read_text())


def test_a_killed_run_goes_on_with_the_file_it_stopped_in(tmp_path: Path, whole: tuple[Path, int]) -> None:
    expected, count = whole
    document = TinyTuples().load()["document"][5]
    process = in_process(embed_run, tmp_path, "out", document)
    process.join()
    assert process.exitcode == -signal.SIGKILL
    left = sorted(path.name for path in (tmp_path / "out").glob("train*"))
    assert left == ["train-00000-of-00004.parquet"]
    written = (tmp_path / "out" / left[0]).stat()
    with pytest.raises(
        ValueError, match=r"not complete: there is no manifest.json beside embed.json.*goes on where it"
    ):
        LocalFiles(str(tmp_path / "out")).load()
    embed_run(tmp_path, "out", cached_texts=0)
    assert contents(tmp_path / "out") == contents(expected)
    assert (tmp_path / "out" / left[0]).stat().st_mtime_ns == written.st_mtime_ns
    first = TinyTuples().load()[:3]  # the rows of the file that was kept
    kept = {*first["document"], *(text for texts in first["negatives"] for text in texts)}
    assert int((tmp_path / "count0.txt").read_text()) == count - len(kept) - len({*first["query"]})


def test_what_a_kill_left_half_written_is_removed(tmp_path: Path, whole: tuple[Path, int]) -> None:
    embed_run(tmp_path, "out", cached_texts=0)
    out = tmp_path / "out"
    (out / ".train-00001-of-00004.parquet.0").write_bytes(b"half")
    (out / "manifest.json").unlink()
    (out / "train-00001-of-00004.parquet").write_bytes(b"cut off")
    embed_run(tmp_path, "out", cached_texts=0)
    assert contents(out) == contents(whole[0])


def test_a_file_that_got_lost_is_made_again(tmp_path: Path, whole: tuple[Path, int]) -> None:
    embed_run(tmp_path, "out", cached_texts=0)
    (tmp_path / "out" / "train-00002-of-00004.parquet").unlink()
    with pytest.raises(ValueError, match=r"train-00002-of-00004.parquet is missing. Copy it again"):
        LocalFiles(str(tmp_path / "out")).load()
    embed_run(tmp_path, "out", cached_texts=0)
    assert contents(tmp_path / "out") == contents(whole[0])
    assert 0 < int((tmp_path / "count0.txt").read_text()) < whole[1]


def test_a_finished_folder_is_left_as_it_is(tmp_path: Path, whole: tuple[Path, int]) -> None:
    embed_run(tmp_path, "out", cached_texts=0)
    embed_run(tmp_path, "out", cached_texts=0)
    assert (tmp_path / "count0.txt").read_text() == "0"
    assert contents(tmp_path / "out") == contents(whole[0])


def on_ranks(ranks: int, tmp_path: Path, *arguments: Any) -> list[int | None]:
    common = {"WORLD_SIZE": str(ranks), "RENDEZVOUS": f"file://{tmp_path}/rendezvous"}
    processes = [
        in_process(joined, embed_run, tmp_path, *arguments, environment={**common, "RANK": str(rank)})
        for rank in range(ranks)
    ]
    try:
        for process in processes:
            process.join(timeout=120)
        return [process.exitcode for process in processes]
    finally:
        for process in processes:
            process.kill()


def test_ranks_divide_the_files_and_write_what_one_process_writes(tmp_path: Path, whole: tuple[Path, int]) -> None:
    expected, count = whole
    assert on_ranks(2, tmp_path, "out") == [0, 0]
    one, several = read(expected), read(tmp_path / "out")
    assert several.drop_columns([f"{column}_teacher" for column in COLUMNS]).equals(
        one.drop_columns([f"{column}_teacher" for column in COLUMNS])
    )
    for column in COLUMNS:
        torch.testing.assert_close(vectors(several, f"{column}_teacher"), vectors(one, f"{column}_teacher"))
    counts = [int((tmp_path / f"count{rank}.txt").read_text()) for rank in range(2)]
    assert min(counts) > 0
    assert sum(counts) <= count
    manifest = read_manifest(tmp_path / "out")
    assert manifest is not None
    assert manifest.verify(tmp_path / "out", hashes=True)


def test_all_ranks_refuse_what_rank_0_refuses(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("keep")
    assert on_ranks(2, tmp_path, "out") == [0, 0]
    for rank in range(2):
        assert "which holds mine.txt; need an empty folder" in (tmp_path / f"error{rank}.txt").read_text()


def test_a_rank_says_so_when_another_was_killed(tmp_path: Path) -> None:
    document = TinyTuples().load()["document"][3]  # in the second file, which is rank 1's
    codes = on_ranks(2, tmp_path, "out", document)
    assert codes[1] == -signal.SIGKILL
    assert "Rank 0 waited for another rank, which has stopped" in (tmp_path / "error0.txt").read_text()
    assert sorted(path.name for path in (tmp_path / "out").glob("train*")) == [
        "train-00000-of-00004.parquet",
        "train-00002-of-00004.parquet",
    ]


def test_a_rank_that_sees_other_rows_is_refused(tmp_path: Path) -> None:
    assert on_ranks(2, tmp_path, "out", None, OtherRows) == [0, 0]
    for rank in range(2):  # both say so
        assert "Rank 1 sees other rows than rank 0" in (tmp_path / f"error{rank}.txt").read_text()
        assert (tmp_path / f"count{rank}.txt").read_text() == "0"


def test_a_rank_that_does_not_see_the_folder_is_refused(tmp_path: Path) -> None:
    assert on_ranks(2, tmp_path, "disk{}") == [0, 0]
    for rank in range(2):
        assert "Rank 1 does not see the folder" in (tmp_path / f"error{rank}.txt").read_text()
    assert not (tmp_path / "disk1").exists()


def test_ranks_divide_what_is_missing(tmp_path: Path, whole: tuple[Path, int]) -> None:
    embed_run(tmp_path, "out", cached_texts=0)
    for shard in (0, 2):  # both would be rank 0's, were all files divided anew
        (tmp_path / "out" / f"train-0000{shard}-of-00004.parquet").unlink()
    assert on_ranks(2, tmp_path, "out") == [0, 0]
    assert all(int((tmp_path / f"count{rank}.txt").read_text()) > 0 for rank in range(2))
    assert len(read(tmp_path / "out")) == 10


def test_a_file_that_vanishes_meanwhile_is_noticed(tmp_path: Path) -> None:
    first = tmp_path / "out" / "train-00000-of-00003.parquet"

    class Vandal(WatchedTeacher):
        def encode(self, *arguments: Any, **settings: Any) -> Tensor:
            first.unlink(missing_ok=True)
            return super().encode(*arguments, **settings)

    model = watched_teacher(tmp_path)
    model.__class__ = Vandal
    with pytest.raises(
        ValueError, match=r"1 of 3 files are not in .*, such as train-00000-of-00003.parquet.*Run the same"
    ):
        embed(tmp_path, model=model)


def test_many_processes_without_a_place_to_meet_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(
        ValueError, match=r"WORLD_SIZE=2 but not RANK, MASTER_ADDR, MASTER_PORT.*Start them with torchrun"
    ):
        embed(tmp_path)
