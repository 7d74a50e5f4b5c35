"""What a sentence-transformers folder says about its model, read without sentence-transformers."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from lightning_jv5.models.pooling import PoolingName

POOLING: Mapping[str, PoolingName] = {"cls": "cls", "mean": "mean", "lasttoken": "last"}
TASK_SWITCHING = "task_switching.TaskSwitchingTransformer"  # a Transformer whose code we write into a folder
_OLD_POOLING_KEYS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
ACTIVATIONS: Mapping[str, type[nn.Module]] = {
    "torch.nn.modules.linear.Identity": nn.Identity,
    "torch.nn.modules.activation.Tanh": nn.Tanh,
    "torch.nn.modules.activation.ReLU": nn.ReLU,
    "torch.nn.modules.activation.GELU": nn.GELU,
    "torch.nn.modules.activation.SiLU": nn.SiLU,
    "torch.nn.modules.activation.Sigmoid": nn.Sigmoid,
}
_TRANSFORMER_CONFIGS = tuple(
    f"sentence_{family}_config.json"
    for family in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
_ROLE_PROMPT_NAMES = {"query": ("query",), "document": ("document", "passage", "corpus")}
_SUPPORTED = "Supported: Transformer, Pooling (mean, cls, lasttoken), then any Dense, then at most one Normalize."


@dataclass(frozen=True)
class DenseLayer:
    """A Dense module: ``activation(W x + b)`` after pooling.

    Attributes:
        in_features: Dimension that it takes.
        out_features: Dimension that it gives.
        bias: Whether there is a ``b``.
        activation: Name of the torch module applied last, as the folder writes it.
        weights: The ``model.safetensors`` file with ``linear.weight`` and ``linear.bias``.
    """

    in_features: int
    out_features: int
    bias: bool
    activation: str
    weights: str

    def load(self) -> nn.Sequential:
        """Build the layer with its weights, in float32.

        Raises:
            ValueError: If the file's tensors do not fit the config.
        """
        from safetensors.torch import load_file

        linear = nn.Linear(self.in_features, self.out_features, bias=self.bias)
        tensors = {name.removeprefix("linear."): tensor.float() for name, tensor in load_file(self.weights).items()}
        try:
            linear.load_state_dict(tensors)
        except RuntimeError as error:
            raise ValueError(f"{self.weights} does not fit its config.json: {error}") from error
        return nn.Sequential(linear, ACTIVATIONS[self.activation]())


@dataclass(frozen=True)
class SentenceTransformersFolder:
    """The settings in a sentence-transformers folder.

    Attributes:
        pooling: Its pooling, in this package's words.
        subfolder: Where in it the transformer and its tokenizer lie; empty for the folder itself.
        max_length: Its ``max_seq_length``, in tokens; None where the tokenizer's ``model_max_length`` holds instead.
        lowercase: Whether texts are lowered before tokenising.
        prompts: Prompt by role, ``"query"`` and ``"document"``; only non-empty ones.
        dense: Dense modules, in order.
        normalize: Whether it ends with Normalize.
    """

    pooling: PoolingName
    subfolder: str = ""
    max_length: int | None = None
    lowercase: bool = False
    prompts: Mapping[str, str] = field(default_factory=dict)
    dense: tuple[DenseLayer, ...] = ()
    normalize: bool = False


def read_sentence_transformers_folder(path: str, *, revision: str | None = None) -> SentenceTransformersFolder | None:
    """Read the settings of a sentence-transformers model.

    Args:
        path: A folder or a hub id.
        revision: Branch, tag or commit on the hub.

    Returns:
        The settings, or None where there is no ``modules.json``.

    Raises:
        ValueError: If it has modules or settings that this package does not compute, or Dense weights only as pickle.
    """
    modules = _read_json(path, "modules.json", revision)
    if modules is None:
        return None
    names = [_module_name(path, module["type"]) for module in modules]
    dense_count = names.count("Dense")
    if names not in (
        ["Transformer", "Pooling", *["Dense"] * dense_count],
        ["Transformer", "Pooling", *["Dense"] * dense_count, "Normalize"],
    ):
        raise ValueError(
            f"{path!r} chains the modules {', '.join(names)}, an order that is not supported. {_SUPPORTED}"
        )
    folders = [module.get("path", "") for module in modules]

    transformer: dict[str, Any] = next(
        (found for name in _TRANSFORMER_CONFIGS if (found := _read_json(path, _join(folders[0], name), revision))), {}
    )
    task = transformer.get("transformer_task", "feature-extraction")
    if task != "feature-extraction" or transformer.get("processing_kwargs"):
        raise ValueError(
            f"{path!r}: the Transformer module sets transformer_task {task!r} and processing_kwargs "
            f"{transformer.get('processing_kwargs')!r}; only feature-extraction without processing_kwargs is supported."
        )
    model = _read_json(path, "config_sentence_transformers.json", revision) or {}
    kind = model.get("model_type", "SentenceTransformer")
    if kind != "SentenceTransformer":
        raise ValueError(f"{path!r} is a {kind}; need a SentenceTransformer, with one dense vector for each text.")
    return SentenceTransformersFolder(
        pooling=_read_pooling(path, folders[1], revision),
        subfolder=folders[0],
        max_length=transformer.get("max_seq_length"),
        lowercase=bool(transformer.get("do_lower_case", False)),
        prompts=_role_prompts(path, model),
        dense=tuple(_read_dense(path, folder, revision) for folder in folders[2 : 2 + dense_count]),
        normalize=names[-1] == "Normalize",
    )


def _module_name(path: str, kind: str) -> str:
    if kind == TASK_SWITCHING:
        return "Transformer"
    name = kind.rpartition(".")[2]
    if not kind.startswith("sentence_transformers.") or name not in ("Transformer", "Pooling", "Dense", "Normalize"):
        raise ValueError(f"{path!r} has a module {kind}, which is not supported. {_SUPPORTED}")
    return name


def _read_pooling(path: str, folder: str, revision: str | None) -> PoolingName:
    config = _read_json(path, _join(folder, "config.json"), revision)
    if config is None:
        raise ValueError(f"{path!r}: the Pooling module has no {_join(folder, 'config.json')}. Is the folder complete?")
    mode = config.get("pooling_mode")
    if mode is None:
        mode = [name for key, name in _OLD_POOLING_KEYS.items() if config.get(key)] or ["mean"]
    modes = [mode] if isinstance(mode, str) else list(mode)
    if len(modes) != 1 or modes[0] not in POOLING:
        raise ValueError(f"{path!r}: Pooling {' + '.join(modes)} is not supported; one of {', '.join(POOLING)} is.")
    if not config.get("include_prompt", True):
        raise ValueError(f"{path!r}: Pooling with include_prompt: false is not supported; prompts are always pooled.")
    return POOLING[modes[0]]


def _read_dense(path: str, folder: str, revision: str | None) -> DenseLayer:
    config: dict[str, Any] = _read_json(path, _join(folder, "config.json"), revision) or {}
    names = {config.get(key) or "sentence_embedding" for key in ("module_input_name", "module_output_name")}
    if names != {"sentence_embedding"} or config.get("use_residual"):
        raise ValueError(
            f"{path!r}: the Dense module in {folder!r} has a residual or works on {', '.join(sorted(names))}; only a "
            "plain Dense on sentence_embedding is supported."
        )
    activation = config.get("activation_function", "torch.nn.modules.activation.Tanh")
    if activation not in ACTIVATIONS:
        raise ValueError(
            f"{path!r}: the Dense module in {folder!r} has activation {activation!r}; supported: "
            f"{', '.join(ACTIVATIONS)}."
        )
    if not {"in_features", "out_features"} <= config.keys():
        raise ValueError(f"{path!r}: {_join(folder, 'config.json')} lacks in_features or out_features. Is it complete?")
    weights = _file(path, _join(folder, "model.safetensors"), revision)
    if weights is None:
        raise ValueError(
            f"{path!r}: the Dense module in {folder!r} has no model.safetensors; pytorch_model.bin is a pickle, which "
            "can run any code, and is not read. Save the model again with a current sentence-transformers."
        )
    return DenseLayer(config["in_features"], config["out_features"], config.get("bias", True), activation, weights)


def _role_prompts(path: str, model: Mapping[str, Any]) -> dict[str, str]:
    named: dict[str, str] = model.get("prompts") or {}
    default_name = model.get("default_prompt_name")
    if default_name is not None and default_name not in named:
        raise ValueError(f"{path!r}: default_prompt_name {default_name!r} is not among its prompts {sorted(named)}.")
    default = named.get(default_name, "") if default_name is not None else ""
    by_role = {
        role: next((named[name] for name in names if name in named), default)
        for role, names in _ROLE_PROMPT_NAMES.items()
    }
    return {role: prompt for role, prompt in by_role.items() if prompt}


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def _read_json(path: str, name: str, revision: str | None) -> Any:
    file = _file(path, name, revision)
    return None if file is None else json.loads(Path(file).read_text(encoding="utf-8"))


def _file(path: str, name: str, revision: str | None) -> str | None:
    """Return where a file of a folder or hub repository lies on this machine, or None if there is none."""
    folder = Path(path)
    if folder.is_dir():
        return str(folder / name) if (folder / name).is_file() else None
    from transformers.utils import cached_file

    try:
        found = cached_file(
            path,
            name,
            revision=revision,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
        )
    except OSError as error:
        raise ValueError(f"Cannot read {name} of {path!r} on the hub: {error}") from error
    return None if found is None else str(found)
