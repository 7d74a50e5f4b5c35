"""Tiny adapters with weights that matter, in models and in folders, as export lays them out."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lightning_jv5.models.backbone import load_backbone
from lightning_jv5.models.lora import LoRA, adapter_parameters, add_lora, save_adapter
from lightning_jv5.models.model_folder import DESCRIPTION, ModelFolder


def fill_adapter(backbone: nn.Module, name: str, seed: int = 0) -> None:
    """Give an adapter weights as if it had been trained: a new one changes nothing."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weights in adapter_parameters(backbone, name).values():
            weights.copy_(0.2 * torch.randn(weights.shape, generator=generator))


def write_adapter(
    folder: Path,
    model: str,
    *,
    seed: int = 0,
    described: dict[str, Any] | None = None,
    base: str | None = None,
    **settings: Any,
) -> Path:
    """Write an adapter of the model in another folder, called by its folder's name.

    Args:
        folder: Where to.
        model: Path of the model.
        seed: Of the weights.
        described: What our own description says: such as ``prompts``; there is none by default.
        base: What PEFT's file says of the model's path.
        settings: Of :class:`LoRA`.
    """
    backbone = load_backbone(model)
    add_lora(backbone, LoRA(folder.name, **{"rank": 4, "alpha": 12.0, **settings}))
    fill_adapter(backbone, folder.name, seed)
    folder.mkdir(parents=True)
    save_adapter(backbone, folder.name, folder, base=base)
    if described is not None:
        description = ModelFolder(**{"kind": "adapter", "prompts": {}, "max_length": {}, "dim": 32, **described})
        (folder / DESCRIPTION).write_text(json.dumps(description.to_plain()))
    return folder
