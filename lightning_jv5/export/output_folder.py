"""Where a command may write its folder: where nothing is yet, or over a model that this package wrote."""

import json
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from lightning_jv5.export.onnx_card import DESCRIPTION as ONNX_DESCRIPTION
from lightning_jv5.models.model_folder import ADAPTERS, CARD, DESCRIPTION

MADE_WITH = "made with lightning_jv5"  # in every card
JINA_ARCHITECTURE = "JinaEmbeddingsV5Model"
_WRITTEN = (  # by export, assemble, recipe, convert and onnx, here or in a folder below
    *("*.json", "*.safetensors", "*.onnx", "*.onnx.data", "*training_config.yaml", CARD, "task_switching.py"),
    *("vocab.txt", "merges.txt", "*.jinja", "*.model"),  # tokenizers
)


def check_output(folder: Path, overwrite: bool) -> None:
    """Refuse a folder that is there, unless it may be replaced and holds a model of ours and nothing else, or nothing.

    Raises:
        ValueError: If it may not be replaced, is something else, or holds files that would be lost.
    """
    if not folder.exists():
        return
    if not overwrite:
        raise ValueError(f"Got output {str(folder)!r}, which is there already. Choose another, or set overwrite.")
    if not folder.is_dir() or not (_is_ours(folder) or not any(folder.iterdir())):
        raise ValueError(
            f"Got output {str(folder)!r}, which is there and no model of ours to be replaced. Choose another."
        )
    if stray := _stray(folder):
        raise ValueError(
            f"Got output {str(folder)!r}, a model to be replaced, and {stray!r} in it, which would be lost: no command "
            "writes a file of that name. Move it elsewhere, or choose another output."
        )


def _is_ours(folder: Path) -> bool:
    if any((folder / name).is_file() for name in (DESCRIPTION, ONNX_DESCRIPTION)):
        return True
    card, config = folder / CARD, folder / "config.json"
    if not card.is_file() or MADE_WITH not in card.read_text(encoding="utf-8", errors="replace"):
        return False
    # A README may say so of any project. Only two of our layouts have no description beside the card
    return _has_architecture(config) or (config.is_file() and any(folder.glob(f"{ADAPTERS}/*/{DESCRIPTION}")))


def _has_architecture(config: Path) -> bool:
    try:
        found: Any = json.loads(config.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and found.get("architectures") == [JINA_ARCHITECTURE]


def _stray(folder: Path) -> str | None:
    """Return a file that no command writes, if there is one."""
    files = (path for path in folder.rglob("*") if not path.is_dir() or path.is_symlink())
    strays = (path for path in files if not any(fnmatch(path.name, pattern) for pattern in _WRITTEN))
    return next((path.relative_to(folder).as_posix() for path in strays), None)
