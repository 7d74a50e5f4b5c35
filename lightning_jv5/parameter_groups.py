"""Which parameters the optimizer gets, and with what weight decay and learning rate."""

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from lightning_jv5.models.sharding import is_shard


def parameter_groups(
    named_parameters: Iterable[tuple[str, nn.Parameter]], learning_rates: Mapping[str, float] | None = None
) -> list[dict[str, Any]]:
    """Group trainable parameters for an optimizer.

    Tensors with fewer than two dimensions (norms, biases, temperatures) get no weight decay; the others get the
    optimizer's. Frozen parameters are left out. Weights that ranks hold a part of (FSDP2) have groups of their own, as
    fused optimizers cannot mix them with others.

    Args:
        named_parameters: As from ``module.named_parameters()``.
        learning_rates: Learning rate by shell-style pattern of the parameter's name, such as
            ``{"*projection*": 1e-3}``; the first pattern that fits wins. Others get the optimizer's.

    Returns:
        Optimizer groups, each with a ``name`` that tells the pattern and whether it decays.

    Raises:
        ValueError: If nothing is trainable, or a pattern fits no trainable parameter.

    >>> [group["name"] for group in parameter_groups(nn.Linear(2, 2).named_parameters())]
    ['decay', 'no_decay']
    """
    rates = dict(learning_rates or {})
    groups: dict[tuple[str | None, bool, bool], dict[str, Any]] = {}
    names = []
    for name, parameter in named_parameters:
        if not parameter.requires_grad:
            continue
        names.append(name)
        pattern = next((pattern for pattern in rates if fnmatchcase(name, pattern)), None)
        decays = parameter.ndim >= 2
        key = (pattern, decays, is_shard(parameter))
        if key not in groups:
            group_name = "decay" if decays else "no_decay"
            groups[key] = {"params": [], "name": group_name if pattern is None else f"{pattern}/{group_name}"}
            if not decays:
                groups[key]["weight_decay"] = 0.0
            if pattern is not None:
                groups[key]["lr"] = rates[pattern]
        groups[key]["params"].append(parameter)
    if not names:
        raise ValueError("Nothing to train: every parameter is frozen. Leave the student or a projection trainable.")
    unused = [pattern for pattern in rates if not any(fnmatchcase(name, pattern) for name in names)]
    if unused:
        raise ValueError(
            f"Got a learning rate for {unused[0]!r}, which fits no trainable parameter. "
            f"Names look like {names[0]!r} and {names[-1]!r}; patterns are shell-style, such as '*projection*'."
        )
    return list(groups.values())
