"""Where a command may write its folder: where nothing is yet, or over a model that this package wrote."""

from pathlib import Path

from lightning_jv5.export.onnx_card import DESCRIPTION as ONNX_DESCRIPTION
from lightning_jv5.models.model_folder import CARD, DESCRIPTION

MADE_WITH = "made with lightning_jv5"  # in every card: the layout jina_v5 has nothing else to know it by


def check_output(folder: Path, overwrite: bool) -> None:
    """Refuse a folder that is there, unless it may be replaced and holds a model of ours, or nothing.

    Raises:
        ValueError: If it may not be replaced, or is something else.
    """
    if not folder.exists():
        return
    if overwrite and not _may_go(folder):
        raise ValueError(
            f"Got output {str(folder)!r}, which is there and no model of ours to be replaced. Choose another."
        )
    if not overwrite:
        raise ValueError(f"Got output {str(folder)!r}, which is there already. Choose another, or set overwrite.")


def _may_go(folder: Path) -> bool:
    if not folder.is_dir():
        return False
    if not any(folder.iterdir()) or any((folder / name).is_file() for name in (DESCRIPTION, ONNX_DESCRIPTION)):
        return True
    card = folder / CARD
    return card.is_file() and MADE_WITH in card.read_text(encoding="utf-8", errors="replace")
