"""Where a run lives: ``<runs>/<name>/version_N/``, and how it is found again."""

import re
import zipfile
from dataclasses import dataclass
from pathlib import Path

CHECKPOINTS = "checkpoints"
AVERAGED_CHECKPOINT = "averaged.ckpt"  # weights alone: nothing to resume from
RESUME_WORDS = ("last", "last-or-new")


@dataclass(frozen=True)
class Run:
    """One run's folder and, where it continues, the checkpoint that it continues from.

    Attributes:
        folder: ``<runs>/<name>/version_N``; made by whoever writes to it first.
        checkpoint: The checkpoint to load, if any.
        resumed: Whether the folder already holds the beginning of this run.
    """

    folder: Path
    checkpoint: Path | None = None
    resumed: bool = False


def choose_run(runs: Path, name: str, checkpoint: str | None) -> Run:
    """Return the folder of a new run, or of the one to continue.

    Args:
        runs: Folder of all runs.
        name: Name of this run; its versions are numbered.
        checkpoint: ``"last"``: continue the newest complete checkpoint of this name in its folder; ``"last-or-new"``:
            the same, or start where there is none; a path: start a new version from that file; None: start anew.

    Raises:
        ValueError: If there is nothing to continue, or no such file.
    """
    home = runs / name
    if checkpoint in RESUME_WORDS:
        newest = newest_checkpoint(home)
        if newest is not None:
            return Run(newest.parent.parent, newest, resumed=True)
        if checkpoint == "last":
            raise ValueError(
                f"--ckpt_path last: no complete checkpoint in {home}/version_*/{CHECKPOINTS}. Start the run without "
                "--ckpt_path, or with --ckpt_path last-or-new, which starts where there is nothing to continue."
            )
        return Run(home / f"version_{next_version(home)}")
    if checkpoint is not None and "://" not in checkpoint and checkpoint not in {"best", "hpc", "registry"}:
        path = Path(checkpoint)
        if not path.is_file():
            raise ValueError(f"--ckpt_path {checkpoint}: no such file. Checkpoints of this run name: {_listed(home)}.")
        if not is_complete(path):
            raise ValueError(f"--ckpt_path {checkpoint}: the file is cut off or no checkpoint; choose another.")
        return Run(home / f"version_{next_version(home)}", path)
    return Run(home / f"version_{next_version(home)}")


def newest_checkpoint(home: Path) -> Path | None:
    """Return the checkpoint written last among all versions of a run name that a run can be resumed from.

    Files that were cut off are passed over, as are averaged weights.
    """
    files = sorted(home.glob(f"version_*/{CHECKPOINTS}/*.ckpt"), key=lambda path: path.stat().st_mtime_ns, reverse=True)
    return next((path for path in files if path.name != AVERAGED_CHECKPOINT and is_complete(path)), None)


def is_complete(checkpoint: Path) -> bool:
    """Return whether a checkpoint was written to its end: torch's format is a zip, whose directory comes last."""
    return checkpoint.is_dir() or zipfile.is_zipfile(checkpoint)


def next_version(home: Path) -> int:
    """Return the first number above those of the versions that exist."""
    numbers = [int(match[1]) for path in home.glob("version_*") if (match := re.fullmatch(r"version_(\d+)", path.name))]
    return max(numbers, default=-1) + 1


def _listed(home: Path) -> str:
    return ", ".join(str(path) for path in sorted(home.glob(f"version_*/{CHECKPOINTS}/*.ckpt"))) or "none"
