"""The base of rotary position embeddings (RoPE theta): one to train with, one to infer with.

A larger theta turns the positions' angles more slowly, so that a model meets at 32,768 tokens the angles that it knows
from training at 4,096: arXiv:2602.15547, table A1. RoPE: https://arxiv.org/abs/2104.09864.
"""

import copy
from typing import Any

import torch
from torch import nn


def rope_theta(backbone: nn.Module) -> float | None:
    """Return the theta that a backbone computes with, or None where it has no rotary embeddings of a single theta."""
    parameters = getattr(getattr(backbone, "config", None), "rope_parameters", None)
    theta = parameters.get("rope_theta") if isinstance(parameters, dict) else None
    return None if theta is None or not _rotary_embeddings(backbone) else float(theta)


def set_rope_theta(backbone: nn.Module, theta: float) -> None:
    """Let a loaded backbone compute with another theta.

    Frequencies are computed once, when a model is built, so changing its config alone would do nothing: each rotary
    embedding is built anew, and its frequencies taken over in place, which no compiled code notices.

    Args:
        backbone: A transformers model with rotary embeddings; its config then has the new theta too.
        theta: Base of the angles (unitless), such as 1e6.

    Raises:
        ValueError: If theta is not above 1, or the backbone has no rotary embeddings of a single theta.
    """
    if not 1 < theta < float("inf"):
        raise ValueError(f"Got a RoPE theta of {theta}; need a number above 1, such as 1.0e6.")
    current = rope_theta(backbone)
    if current is None:
        raise ValueError(
            f"Got a RoPE theta of {theta} for a {type(backbone).__name__}, which has no rotary position embeddings of "
            "a single theta. Leave theta and inference_theta out."
        )
    if theta == current:
        return
    config: Any = backbone.config
    config.rope_parameters = {**config.rope_parameters, "rope_theta": theta}
    for rotary in _rotary_embeddings(backbone):
        with torch.inference_mode(False), torch.device("cpu"):
            rebuilt = type(rotary)(copy.deepcopy(config))
        for name, buffer in rebuilt.named_buffers():
            getattr(rotary, name).copy_(buffer)
        rotary.config = config
        rotary.attention_scaling = rebuilt.attention_scaling


def _rotary_embeddings(backbone: nn.Module) -> list[Any]:
    return [part for part in backbone.modules() if "inv_freq" in dict(part.named_buffers(recurse=False))]
