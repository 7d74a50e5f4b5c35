"""The measured scores that lie in a model folder, and how those of a run get there."""

import json
from pathlib import Path
from typing import Any

from lightning_jv5.export.machine_paths import without_machine_paths

RESULTS, SCORES = "results.json", "scores.json"  # what recipe measured; what validate or test did
SCORE_FILES = (RESULTS, SCORES)
_KEYS = {"task", "dim", "precision", "values"}


def read_scores(path: str | None) -> dict[str, Any] | None:
    """Read what ``validate`` or ``test`` wrote, without machine paths.

    Args:
        path: A ``scores.json``, or the folder of a run that has one; None for no scores.

    Returns:
        What it holds, or None.

    Raises:
        ValueError: If there is no such file, or it holds something else.
    """
    if path is None:
        return None
    file = Path(path, SCORES) if Path(path).is_dir() else Path(path)
    if not file.is_file():
        raise ValueError(
            f"Got scores {path!r}, but there is no file {str(file)!r}. Give the {SCORES} that validate or test wrote, "
            "or the folder of their run, such as runs/evaluate/version_0."
        )
    try:
        found: Any = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:  # no JSON, or no text
        found = None
    rows = found.get("scores") if isinstance(found, dict) else None
    if not isinstance(rows, list) or not all(isinstance(row, dict) and row.keys() >= _KEYS for row in rows):
        raise ValueError(
            f"Got scores {path!r}, and {str(file)!r} is not what validate or test write: a list of scores, each with "
            f"{', '.join(sorted(_KEYS))}. Give their {SCORES}."
        )
    plain: dict[str, Any] = without_machine_paths(found)
    return plain
