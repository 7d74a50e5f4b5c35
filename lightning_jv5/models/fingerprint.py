"""A short name for the frozen weights of a model, by which an adapter knows its own."""

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor

_SAMPLED = 64  # numbers of each tensor that tell its content: training changes them all


def fingerprint_of(weights: Mapping[str, Tensor], *, adapter: str | None = None) -> str:
    """Hash names, shapes and a sample of the numbers of tensors, quickly for any size.

    Args:
        weights: Tensors by name.
        adapter: Name of the LoRA adapter to hash; by default everything but adapters.

    >>> fingerprint_of({"w": torch.zeros(2)}) == fingerprint_of({"w": torch.ones(2)})
    False
    """
    digest = hashlib.sha256()
    for key, tensor in sorted(weights.items(), key=lambda item: _own_name(item[0])):
        of_adapter = ".lora_" in key  # perhaps one that was loaded beside the trained one
        if (adapter is None) == of_adapter or (adapter is not None and f".{adapter}." not in f"{key}."):
            continue
        flat = tensor.detach().flatten()
        # float64: float32 would round the last index of a large table to one beyond it
        places = torch.linspace(0, max(len(flat) - 1, 0), min(len(flat), _SAMPLED), dtype=torch.float64)
        numbers = flat[places.long().to(flat.device)]
        digest.update(f"{_own_name(key)} {tuple(tensor.shape)} {numbers.double().tolist()}".encode())
    return digest.hexdigest()


def _own_name(key: str) -> str:
    """Return a weight's name without any adapter: which layers have one, beside the trained one's, does not matter."""
    return key.replace(".base_layer.", ".")
