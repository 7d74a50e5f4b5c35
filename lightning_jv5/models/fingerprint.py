"""A short name for the frozen weights of a model, by which an adapter knows its own."""

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor

_SAMPLED = 64  # numbers of each tensor that tell its content: training changes them all


def fingerprint_of(weights: Mapping[str, Tensor]) -> str:
    """Hash names, shapes and a sample of the numbers of tensors, adapters aside, quickly for any size.

    >>> fingerprint_of({"w": torch.zeros(2)}) == fingerprint_of({"w": torch.ones(2)})
    False
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(weights.items(), key=lambda item: item[0].replace(".base_layer", "")):
        if ".lora_" in name:  # an adapter that was loaded beside the trained one
            continue
        flat = tensor.detach().flatten()
        numbers = flat[torch.linspace(0, max(len(flat) - 1, 0), min(len(flat), _SAMPLED)).long().to(flat.device)]
        digest.update(f"{name.replace('.base_layer', '')} {tuple(tensor.shape)} {numbers.double().tolist()}".encode())
    return digest.hexdigest()
