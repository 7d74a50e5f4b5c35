"""The layout of the published jina-embeddings-v5-text models, for engines that merge an adapter as they load.

Only names, keys and shapes are those of https://huggingface.co/jinaai/jina-embeddings-v5-text-small; there is no code
in the folder, and ``config.json`` points at none.
"""

import json
from pathlib import Path

import torch

from lightning_jv5.data.cache import write_json
from lightning_jv5.export.adapters_layout import Written, write_model_and_adapters
from lightning_jv5.export.model_parts import ModelParts
from lightning_jv5.export.output_folder import JINA_ARCHITECTURE
from lightning_jv5.models.lora import ADAPTER_CONFIG
from lightning_jv5.models.model_folder import ADAPTERS

# Which of the two it is, an engine knows from is_decoder
IS_DECODER = {"qwen3": True, "eurobert": False}
_BEYOND_LORA = ("use_rslora", "use_dora", "rank_pattern", "alpha_pattern", "modules_to_save", "lora_bias")


def write_jina_v5(parts: ModelParts, folder: Path, *, task: str | None, dtype: torch.dtype) -> Written:
    """Write model and adapters, and a config of that architecture.

    Args:
        parts: The model and its adapters.
        folder: Where to; exists.
        task: Must be left out: the folder has all tasks, and who loads it chooses.
        dtype: Of the written weights of the model.

    Raises:
        ValueError: As for :func:`~lightning_jv5.export.adapters_layout.write_model_and_adapters`; if a task was given,
            an adapter is not ``W + B A (alpha / rank)``, or the layout does not have the architecture.
    """
    if task is not None:
        raise ValueError(f"Got task {task!r} for the layout jina_v5, which has all of them. Leave task out.")
    written = write_model_and_adapters(parts, folder, task=None, dtype=dtype)
    for name in parts.tasks:
        adapter = json.loads((folder / ADAPTERS / name / ADAPTER_CONFIG).read_text(encoding="utf-8"))
        if beyond := [key for key in _BEYOND_LORA if adapter.get(key)]:
            raise ValueError(
                f"The adapter {name!r} sets {beyond[0]}, and readers of the layout jina_v5 merge "
                "W + B A (alpha / rank). Use the layout switching."
            )
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if config["model_type"] not in IS_DECODER:
        raise ValueError(
            f"Got a {config['model_type']} model for the layout jina_v5, which has {' and '.join(IS_DECODER)}. Use the "
            "layout switching."
        )
    config |= {
        "architectures": [JINA_ARCHITECTURE],
        "model_type": "jina_embeddings_v5",
        "task_names": parts.tasks,
        "is_decoder": IS_DECODER[config["model_type"]],
    }
    write_json(folder / "config.json", config)
    return written
