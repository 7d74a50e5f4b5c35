"""A short name for the frozen weights of a model, by which an adapter knows its own."""

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor

_SAMPLED = 64  # numbers of each tensor that tell its content: training changes them all


def fingerprint_of(weights: Mapping[str, Tensor], *, adapters: bool = False) -> str:
    """Hash names, shapes and a sample of the numbers of tensors, quickly for any size.

    Args:
        weights: Tensors by name.
        adapters: Whether those of adapters count too; otherwise it is as if there were none.

    >>> fingerprint_of({"w": torch.zeros(2)}) == fingerprint_of({"w": torch.ones(2)})
    False
    """
    digest = hashlib.sha256()
    for key, tensor in sorted(weights.items(), key=lambda item: _own_name(item[0])):
        if ".lora_" in key and not adapters:  # an adapter that was loaded beside the trained one
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
