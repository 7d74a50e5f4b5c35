"""LoRA adapters by name on one frozen backbone, through PEFT: https://arxiv.org/abs/2106.09685.

The layers are injected into the backbone itself, not wrapped around it: whoever runs the backbone needs to know nothing
of adapters. Files are PEFT's own, so that ``PeftModel.from_pretrained`` reads them.
"""

import contextlib
import re
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lightning_jv5.rebuildable import Rebuildable

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"

_PREFIX = "base_model.model."  # of every key in PEFT's files
_LORA = r"(\.lora_[A-Za-z_]+)"  # in a key before the adapter's name, which PEFT's files leave out


@dataclass
class LoRA(Rebuildable):
    """An adapter to be trained: ``W + B A (alpha / rank)`` in place of each of some frozen weights ``W``.

    Args:
        name: What the adapter is called, usually its task: ``"retrieval"``, ``"text-matching"``, ``"clustering"``,
            ``"classification"``. Log keys, folders and ``task=`` use it.
        rank: Rows of ``A`` and columns of ``B``.
        alpha: Scales the product, together with the rank.
        dropout: Probability of dropping a coordinate of what goes into ``A``, in training.
        target_modules: ``"all-linear"``, or names of linear layers such as ``["q_proj", "v_proj"]`` (ends of their
            dotted names).
        init: ``"gaussian"``: A from a normal distribution of variance ``1 / rank^2``, B zero, as PEFT has it;
            ``"default"``: A as PyTorch starts a linear layer, B zero.

    Raises:
        ValueError: If a setting is not possible.
    """

    name: str
    rank: int = 32
    alpha: float = 32.0
    dropout: float = 0.1
    target_modules: str | list[str] = "all-linear"
    init: Literal["gaussian", "default"] = "gaussian"

    def __post_init__(self) -> None:
        check_adapter_name(self.name)
        if self.rank < 1:
            raise ValueError(f"Got rank {self.rank} of the adapter {self.name!r}; need at least 1, such as 32.")
        if not self.alpha > 0:
            raise ValueError(f"Got alpha {self.alpha} of the adapter {self.name!r}; need a number above 0, such as 32.")
        if not 0 <= self.dropout < 1:
            raise ValueError(
                f"Got dropout {self.dropout} of the adapter {self.name!r}; need a probability, at least 0 and below 1."
            )
        if isinstance(self.target_modules, str) and self.target_modules != "all-linear":
            raise ValueError(
                f"Got target_modules {self.target_modules!r} of the adapter {self.name!r}; need 'all-linear' or a list "
                "of names, such as [q_proj, v_proj]."
            )
        if not self.target_modules:
            raise ValueError(f"Got no target_modules of the adapter {self.name!r}; name some, or say 'all-linear'.")
        if self.init not in ("gaussian", "default"):
            raise ValueError(f"Got init {self.init!r} of the adapter {self.name!r}; need 'gaussian' or 'default'.")


def check_adapter_name(name: str) -> None:
    """Refuse a name that cannot be a module's, a folder's and a log key's.

    Raises:
        ValueError: If it is such a name.

    >>> check_adapter_name("text-matching")
    """
    if not name.replace("-", "").replace("_", "").isalnum():
        raise ValueError(
            f"Got an adapter named {name!r}; need letters, digits, '-' and '_' only, such as 'text-matching'."
        )
    if hasattr(nn.ModuleDict(), name):  # where PEFT keeps the adapters of a layer
        raise ValueError(
            f"Got an adapter named {name!r}, a name that PyTorch's modules use themselves; call it for its task, such "
            "as 'text-matching'."
        )


def add_lora(backbone: nn.Module, lora: LoRA) -> None:
    """Add a new adapter to a backbone, switch it on, and freeze everything else.

    Raises:
        ValueError: If there is an adapter of that name, or no layer that is meant.
    """
    from peft import LoraConfig

    if lora.name in adapter_names(backbone):
        raise ValueError(f"Got a second adapter named {lora.name!r}; give it another name.")
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=_targets(backbone, lora),
        init_lora_weights="gaussian" if lora.init == "gaussian" else True,
        task_type="FEATURE_EXTRACTION",
    )
    _inject(backbone, lora.name, config)
    backbone.requires_grad_(False)
    for parameter in adapter_parameters(backbone, lora.name).values():
        parameter.requires_grad_(True)


def _targets(backbone: nn.Module, lora: LoRA) -> list[str]:
    """Return the last names of the layers that are meant, as whoever loads the adapter elsewhere needs them."""
    linear = _linear_layers(backbone)
    known = sorted({name.rpartition(".")[2] for name in linear})
    if not linear:
        raise ValueError(f"Got a {type(backbone).__name__} without linear layers; an adapter needs some.")
    if isinstance(lora.target_modules, str):
        return known
    for target in lora.target_modules:
        if not any(name == target or name.endswith(f".{target}") for name in linear):
            raise ValueError(
                f"Got the target module {target!r} of the adapter {lora.name!r}, which no linear layer of the "
                f"{type(backbone).__name__} is called. They are called {', '.join(known)}."
            )
    return sorted(lora.target_modules)


def _linear_layers(backbone: nn.Module) -> list[str]:
    """Return the names of the model's own linear layers, those that have adapters among them."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    adapted = [name for name, part in backbone.named_modules() if isinstance(part, BaseTunerLayer)]
    return adapted + [
        name
        for name, part in backbone.named_modules()
        if isinstance(part, nn.Linear) and not any(name.startswith(f"{layer}.") for layer in adapted)
    ]


def _inject(backbone: nn.Module, name: str, config: Any) -> None:
    from peft import inject_adapter_in_model

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Already found a `peft_config` attribute")  # several adapters are meant
        inject_adapter_in_model(config, backbone, adapter_name=name)
    for layer in _layers(backbone):
        layer.train(layer.get_base_layer().training)  # new modules are in training mode, whatever is around them
    switch_adapter(backbone, name)


def _remove(backbone: nn.Module, name: str) -> None:
    """Take an adapter out again, also one that was injected in part."""
    adapted = [(parent, key, part) for parent in backbone.modules() for key, part in parent.named_children()]
    layers = set(_layers(backbone))
    for parent, key, part in adapted:
        if part in layers:
            with warnings.catch_warnings(action="ignore"):  # that another adapter is on now: the caller decides
                part.delete_adapter(name)  # type: ignore[operator]
            if not part._all_available_adapter_names():  # type: ignore[operator]
                setattr(parent, key, part.get_base_layer())  # type: ignore[operator]
    holder: Any = backbone
    if hasattr(holder, "peft_config"):
        holder.peft_config.pop(name, None)
        if not holder.peft_config:
            del holder.peft_config


def adapter_names(backbone: nn.Module) -> list[str]:
    """Return the names of the adapters that a backbone has, in the order in which they were added."""
    return list(getattr(backbone, "peft_config", {}))


def adapter_parameters(backbone: nn.Module, name: str) -> dict[str, nn.Parameter]:
    """Return the weights of one adapter by their name in the backbone."""
    own = re.compile(rf"{_LORA}\.{re.escape(name)}(?=\.|$)")  # a layer may be called like an adapter: query
    return {key: parameter for key, parameter in backbone.named_parameters() if own.search(key)}


def active_adapter(backbone: nn.Module) -> str | None:
    """Return the name of the adapter that is on, or None if there is none or all are off."""
    layer = next(_layers(backbone), None)
    if layer is None or layer.disable_adapters:
        return None
    return str(next(iter(layer.active_adapters), "")) or None


@contextlib.contextmanager
def adapter_in_use(backbone: nn.Module, name: str | None) -> Iterator[None]:
    """Compute with one adapter on, or with none; afterwards it is as before.

    Raises:
        ValueError: If there is no such adapter.
    """
    names = adapter_names(backbone)
    if name is not None and name not in names:
        raise ValueError(f"Got the adapter {name!r}; the model has {', '.join(names) or 'none'}.")
    before = active_adapter(backbone)
    if name == before:
        yield
        return
    switch_adapter(backbone, name)
    try:
        yield
    finally:
        switch_adapter(backbone, before)


def switch_adapter(backbone: nn.Module, name: str | None) -> None:
    """Switch one adapter on, or all off; what is trainable stays so, where PEFT's switches would freeze it."""
    trainable = [(parameter, parameter.requires_grad) for parameter in backbone.parameters()]
    for layer in _layers(backbone):
        if name is None:
            layer.enable_adapters(False)
        else:
            layer.set_adapter([name])
            layer.enable_adapters(True)
    for parameter, requires_grad in trainable:
        if parameter.requires_grad != requires_grad:
            parameter.requires_grad_(requires_grad)


def merged_weight(weight: Tensor, down: Tensor, up: Tensor, scaling: float) -> Tensor:
    """Fold an adapter into the weight that it stands beside: ``W + B A (alpha / rank)``, summed in float64.

    Args:
        weight: ``W``, shape ``(out, in)``.
        down: ``A``, shape ``(rank, in)``.
        up: ``B``, shape ``(out, rank)``.
        scaling: ``alpha / rank``.

    Returns:
        The new weight, shape ``(out, in)``, of the dtype of ``weight``.

    >>> merged_weight(torch.eye(2), torch.tensor([[0.0, 2.0]]), torch.tensor([[1.0], [0.0]]), 0.5)
    tensor([[1., 1.],
            [0., 1.]])
    """
    return (weight.double() + up.double() @ down.double() * scaling).to(weight.dtype)


def merge_adapter(backbone: nn.Module, name: str) -> None:
    """Fold one adapter into the weights, and take all adapters out: what is left is a plain model.

    Raises:
        ValueError: If there is no such adapter, or it is not ``W + B A (alpha / rank)`` of linear layers.
    """
    names = adapter_names(backbone)
    if name not in names:
        raise ValueError(f"Got the adapter {name!r}; the model has {', '.join(names) or 'none'}.")
    for layer in _layers(backbone):
        if name not in layer._all_available_adapter_names():
            continue
        base = layer.get_base_layer()
        if not isinstance(base, nn.Linear) or getattr(layer, "use_dora", {}).get(name, False):
            raise ValueError(
                f"The adapter {name!r} changes a {type(base).__name__} or is a DoRA adapter; only LoRA of linear "
                "layers can be merged. Use a layout that keeps adapters, such as switching."
            )
        with torch.no_grad():
            down, up = layer.lora_A[name].weight, layer.lora_B[name].weight
            base.weight.copy_(merged_weight(base.weight, down, up, layer.scaling[name]))
    for other in names:
        _remove(backbone, other)


def _layers(backbone: nn.Module) -> Iterator[Any]:
    from peft.tuners.tuners_utils import BaseTunerLayer

    return (part for part in backbone.modules() if isinstance(part, BaseTunerLayer))


# Files


def save_adapter(backbone: nn.Module, name: str, folder: Path, *, base: str | None) -> None:
    """Write one adapter as PEFT does: ``adapter_config.json`` and ``adapter_model.safetensors``.

    Args:
        backbone: Has the adapter.
        name: Its name.
        folder: Where to; exists.
        base: Path of the model that it belongs to, kept for PEFT's users.
    """
    import copy

    from safetensors.torch import save_file

    holder: Any = backbone
    config = copy.deepcopy(holder.peft_config[name])
    config.base_model_name_or_path = base
    config.inference_mode = True
    config.target_modules = sorted(config.target_modules)  # a set, whose order would differ from run to run
    config.save_pretrained(str(folder))
    weights = adapter_parameters(backbone, name)
    tensors = {
        _PREFIX + re.sub(rf"{_LORA}\.{re.escape(name)}(?=\.|$)", r"\1", key): parameter.detach().cpu().contiguous()
        for key, parameter in weights.items()
    }
    save_file(tensors, str(folder / ADAPTER_WEIGHTS), metadata={"format": "pt"})


def load_adapter(backbone: nn.Module, name: str, folder: Path) -> None:
    """Add an adapter from its folder, frozen; the adapter that is on stays on, and what is trainable stays so.

    Raises:
        ValueError: If the folder has no LoRA adapter, or one that does not fit the backbone.
    """
    from peft import LoraConfig, PeftConfig
    from safetensors.torch import load_file

    check_adapter_name(name)
    for file in (ADAPTER_CONFIG, ADAPTER_WEIGHTS):
        if not (folder / file).is_file():
            raise ValueError(f"Got the adapter folder {str(folder)!r}, which has no {file}. Export the adapter again.")
    config = PeftConfig.from_pretrained(str(folder))
    if not isinstance(config, LoraConfig):
        raise ValueError(f"{str(folder)!r} holds a {config.peft_type} adapter; only LoRA is supported.")
    if name in adapter_names(backbone):
        raise ValueError(f"Got a second adapter named {name!r}; give it another name.")
    before = active_adapter(backbone)
    trainable = {key for key, parameter in backbone.named_parameters() if parameter.requires_grad}
    stored = {
        re.sub(rf"{_LORA}(?=\.|$)", rf"\1.{name}", key.removeprefix(_PREFIX)): tensor
        for key, tensor in load_file(str(folder / ADAPTER_WEIGHTS)).items()
    }
    try:
        # It may be in the middle of a step or of a validation
        with torch.random.fork_rng(devices=[]), torch.inference_mode(False), torch.no_grad():
            _inject(backbone, name, config)
            parameters = adapter_parameters(backbone, name)
            _check_same_tensors(parameters, stored)
            for key, parameter in parameters.items():
                parameter.copy_(stored[key])
    except ValueError as error:
        _remove(backbone, name)
        raise ValueError(
            f"The adapter in {str(folder)!r} does not fit a {type(backbone).__name__}: {error} Was it trained on "
            "another backbone?"
        ) from error
    finally:
        own = adapter_parameters(backbone, name)
        for key, parameter in backbone.named_parameters():  # injecting makes the adapter trainable, all else frozen
            base_key = key.replace(".base_layer", "")
            parameter.requires_grad_(key not in own and (key in trainable or base_key in trainable))
        switch_adapter(backbone, before)


def _check_same_tensors(wanted: dict[str, nn.Parameter], stored: dict[str, Tensor]) -> None:
    differing: Iterable[str] = sorted(wanted.keys() ^ stored.keys()) or [
        key for key, parameter in wanted.items() if parameter.shape != stored[key].shape
    ]
    if first := next(iter(differing), None):
        raise ValueError(f"{first} is missing or has another shape.")
