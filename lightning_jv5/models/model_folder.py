"""What a model folder of ours says beyond what sentence-transformers and PEFT write: ``lightning_jv5.json``."""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from lightning_jv5.rebuildable import Plain

DESCRIPTION = "lightning_jv5.json"
PROJECTION = "projection.safetensors"
ADAPTERS = "adapters"
CARD = "README.md"
OWN_MODEL = "../.."  # base of an adapter under adapters/: the model around it, wherever that lies
FOLDER_FORMAT = 1


@dataclass(frozen=True)
class ModelFolder:
    """A description of a model or of an adapter, as ``export`` writes it.

    Attributes:
        kind: ``"model"``: the whole weights, and any adapters under ``adapters/``; ``"adapter"``: one adapter alone.
        task: Name of the adapter, for an adapter.
        base: Path of the model that the adapter belongs to; :data:`OWN_MODEL` for the one around it.
        base_fingerprint: Tells that model's weights.
        prompts: Text put before each text, by role.
        max_length: Most tokens of a text, by role.
        theta: RoPE theta that it was trained with, if any.
        inference_theta: RoPE theta to infer with, if any.
        dim: Dimension of an embedding.
        trained: How it was trained; plain data.
    """

    kind: Literal["model", "adapter"]
    prompts: dict[str, str]
    max_length: dict[str, int]
    dim: int
    task: str | None = None
    base: str | None = None
    base_fingerprint: str | None = None
    theta: float | None = None
    inference_theta: float | None = None
    trained: dict[str, Plain] = field(default_factory=dict)

    def to_plain(self) -> dict[str, Any]:
        """Return what is written down."""
        return {"format": FOLDER_FORMAT, **vars(self)}


def read_model_folder(path: str | Path) -> ModelFolder | None:
    """Read the description in a folder; None where there is none, or ``path`` is a hub id.

    Raises:
        ValueError: If it is cut off or of another format.
    """
    file = Path(path) / DESCRIPTION
    if not file.is_file():
        return None
    try:
        plain: Any = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(plain, dict):
            raise TypeError(f"it holds {plain!r:.40} and no settings")
        found = plain.pop("format", None)
        if found != FOLDER_FORMAT:
            raise ValueError(
                f"{str(file)!r} has format {found!r}; this version of lightning_jv5 reads {FOLDER_FORMAT}. Read it "
                "with the version that wrote it."
            )
        return ModelFolder(**plain)
    except (json.JSONDecodeError, TypeError) as error:
        raise ValueError(f"Cannot read {str(file)!r}: {error}. Export the model again.") from error


def base_path(folder: str | Path, described: ModelFolder) -> str | None:
    """Return where the model lies that the adapter in a folder belongs to, or None where it does not say.

    >>> adapter = ModelFolder("adapter", {}, {}, 8, task="retrieval", base=OWN_MODEL)
    >>> Path(base_path("models/small/adapters/retrieval", adapter)).as_posix()
    'models/small'
    """
    if described.base != OWN_MODEL:
        return described.base
    return os.path.normpath(Path(folder) / OWN_MODEL)


def adapters_in(path: str | Path) -> dict[str, Path]:
    """Return the adapters under ``adapters/`` of a folder by name."""
    from lightning_jv5.models.lora import ADAPTER_CONFIG

    return {file.parent.name: file.parent for file in sorted(Path(path).glob(f"{ADAPTERS}/*/{ADAPTER_CONFIG}"))}
