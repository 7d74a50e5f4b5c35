"""One task's adapter folded into the weights: a plain sentence-transformers model."""

from dataclasses import replace
from pathlib import Path

import torch

from lightning_jv5.export.adapters_layout import Written
from lightning_jv5.export.model_parts import ModelParts
from lightning_jv5.export.sentence_transformers_layout import write_sentence_transformers
from lightning_jv5.models.lora import merge_adapter

MERGED_TASK = "merged_task"  # among what is said of the training, beside that of the model without it


def write_merged(parts: ModelParts, folder: Path, *, task: str | None, dtype: torch.dtype) -> Written:
    """Write the weights with a task's adapter in them, and its prompts, limits and theta.

    Args:
        parts: The model and its adapters.
        folder: Where to; exists.
        task: The task; may be left out where there is one.
        dtype: Of the written weights of the backbone; they are added up in float64.

    Raises:
        ValueError: If there is no adapter, several and no task, or the adapter is not one of linear layers.
    """
    if not parts.tasks:
        raise ValueError(
            f"Got the model {str(parts.folder)!r}, which has no adapters to merge. SentenceTransformer loads it as it "
            "is."
        )
    if task is None and len(parts.tasks) > 1:
        raise ValueError(
            f"Got no task for the layout merged; a merged model has one of {', '.join(parts.tasks)}. Say which: "
            f"--task={parts.tasks[0]}"
        )
    task = task or parts.tasks[0]
    embedder = parts.embedder(task)
    described = parts.description(embedder, task)
    merge_adapter(embedder.backbone, task)
    write_sentence_transformers(embedder, folder, inference_theta=described.inference_theta, dtype=dtype)
    trained = {**described.trained, MERGED_TASK: task, "model": parts.description(embedder).trained}
    model = replace(described, kind="model", task=None, base=None, base_fingerprint=None, trained=trained)
    return Written(model, {}, described.prompts)
