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
from lightning_jv5.models.sentence_transformers_folder import read_sentence_transformers_folder

# Which of the two it is, an engine knows from is_decoder
IS_DECODER = {"qwen3": True, "eurobert": False}
TASKS = ("retrieval", "text-matching", "clustering", "classification")  # others an engine takes for the first
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
            a task is none of :data:`TASKS`, an adapter is not ``W + B A (alpha / rank)``, there are Dense layers, or
            the layout does not have the architecture.
    """
    if task is not None:
        raise ValueError(f"Got task {task!r} for the layout jina_v5, which has all of them. Leave task out.")
    if unknown := [name for name in parts.tasks if name not in TASKS]:
        raise ValueError(
            f"Got an adapter named {unknown[0]!r} for the layout jina_v5, whose readers know {', '.join(TASKS)} and "
            "take any other name for retrieval. Use the layout switching, which takes any name."
        )
    written = write_model_and_adapters(parts, folder, task=None, dtype=dtype)
    settings = read_sentence_transformers_folder(str(folder))
    if settings is not None and settings.dense:
        raise ValueError(
            f"Got a model with {len(settings.dense)} Dense layer(s) after pooling for the layout jina_v5, whose "
            "readers compute none. Use the layout switching."
        )
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
