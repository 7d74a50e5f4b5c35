"""Frozen weights that need no place in checkpoints, because the student's folder has them."""

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lightning_jv5.models.embedder import Embedder

_SAMPLED = 64  # numbers of each tensor that tell its content: training changes them all


def frozen_weights(student: Embedder) -> dict[str, Tensor]:
    """Return the tensors, by name, that nothing trains, under an adapter of a student that was read from a folder.

    None for a student without an adapter, whose checkpoints are whole, and none for one that was made from a config:
    its weights are random and nowhere else.
    """
    if student.adapter is None or student.folder is None:
        return {}
    trained = {name for name, parameter in student.named_parameters() if parameter.requires_grad}
    return {name: tensor for name, tensor in student.state_dict().items() if name not in trained}


def fingerprint_of(weights: Mapping[str, Tensor]) -> str:
    """Hash names, shapes and a sample of the numbers of tensors, adapters aside, quickly for any size.

    >>> fingerprint_of({"w": torch.zeros(2)}) == fingerprint_of({"w": torch.ones(2)})
    False
    """
    digest = hashlib.sha256()
    for key, tensor in sorted(weights.items(), key=lambda item: _own_name(item[0])):
        if ".lora_" in key:  # an adapter that was loaded beside the trained one
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


def drop_frozen(checkpoint: dict[str, Any], student: Embedder) -> dict[str, Any]:
    """Take the student's frozen weights out of a checkpoint of a module.

    Returns:
        What :func:`restore_frozen` must find again; plain data.
    """
    frozen = frozen_weights(student)
    if not frozen:
        return {}
    dropped = {f"student.{name}" for name in frozen}
    state = checkpoint["state_dict"]
    checkpoint["state_dict"] = {name: tensor for name, tensor in state.items() if name not in dropped}
    return {"fingerprint": fingerprint_of(frozen)}


def restore_frozen(checkpoint: dict[str, Any], student: Embedder, expected: Mapping[str, Any]) -> None:
    """Put the student's own frozen weights in the place of those that a checkpoint left out.

    Raises:
        ValueError: If they are not those that the rest was trained with.
    """
    if not expected:
        return
    frozen = frozen_weights(student)
    if fingerprint_of(frozen) != expected["fingerprint"]:
        raise ValueError(
            f"The checkpoint holds an adapter of other frozen weights than those of this student, from "
            f"{student.folder or 'a config'!r}. Give the student the path of the model that the adapter was trained "
            "on, with the same layers."
        )
    checkpoint["state_dict"] |= {f"student.{name}": tensor for name, tensor in frozen.items()}
