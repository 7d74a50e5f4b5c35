"""What an embedder is made of, decided from its arguments and its folder before any weights are read."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

from torch import nn

from lightning_jv5.data.roles import PROMPT_ROLES, check_role
from lightning_jv5.models.backbone import load_backbone, position_limit, read_config, resolve_path
from lightning_jv5.models.model_folder import read_model_folder
from lightning_jv5.models.pooling import PoolingName
from lightning_jv5.models.sentence_transformers_folder import (
    DenseLayer,
    SentenceTransformersFolder,
    read_sentence_transformers_folder,
)
from lightning_jv5.models.tokenization import Tokenization, load_tokenizer

_DEFAULT_MAX_LENGTH = 512
_NO_LIMIT = 10**6  # tokenizers without a limit say 10**30


@dataclass(frozen=True)
class EncoderSettings:
    """All of an embedder but its weights.

    Attributes:
        source: Resolved folder or hub id, or the complete config dict for random weights.
        subfolder: Where in the folder the transformer lies.
        revision: Branch, tag or commit on the hub.
        trust_remote_code: Whether the hub repository's own Python code may run.
        tokenization: Text to token ids.
        pooling: Token embeddings to embedding.
        dense: Layers after pooling.
        dim: Dimension of an embedding.
    """

    source: str | Mapping[str, Any]
    subfolder: str
    revision: str | None
    trust_remote_code: bool
    tokenization: Tokenization
    pooling: PoolingName
    dense: tuple[DenseLayer, ...]
    dim: int

    def load_backbone(self, **how: Any) -> nn.Module:
        """Load the transformer; ``how`` goes to :func:`~lightning_jv5.models.backbone.load_backbone`."""
        return load_backbone(
            self.source,
            subfolder=self.subfolder,
            revision=self.revision,
            trust_remote_code=self.trust_remote_code,
            **how,
        )

    def load_dense(self) -> nn.Module:
        """Load the layers after pooling, in float32."""
        return nn.Sequential(*(layer.load() for layer in self.dense))


def check_arguments(
    path: str | None,
    config: Mapping[str, Any] | None,
    tokenizer: str | None,
    pooling: str | None,
    prompts: Mapping[str, str] | None,
) -> None:
    """Check what can be checked without reading the model.

    Raises:
        ValueError: If both or neither of ``path`` and ``config`` are given, a config has no tokenizer, or the pooling
            or the role of a prompt is unknown.
    """
    if (path is None) == (config is None):
        raise ValueError(
            f"Got path {path!r} and config {config!r}; need exactly one: "
            "path for existing weights, config for random ones."
        )
    if config is not None and tokenizer is None:
        raise ValueError("Got config without tokenizer. Give tokenizer: a folder, hub id or package:// path with one.")
    if pooling is not None and pooling not in get_args(PoolingName):
        raise ValueError(f"Got pooling {pooling!r}; need one of {', '.join(get_args(PoolingName))}.")
    for role in prompts or {}:
        check_role(role, PROMPT_ROLES, "prompts")


def read_settings(
    path: str | None,
    *,
    config: Mapping[str, Any] | None,
    tokenizer: str | None,
    pooling: PoolingName | None,
    prompts: Mapping[str, str] | None,
    max_length: int | Mapping[str, int] | None,
    revision: str | None,
    trust_remote_code: bool,
) -> EncoderSettings:
    """Complete an embedder's arguments from its sentence-transformers folder, if it is one; explicit ones win.

    Raises:
        ValueError: If a setting is wrong, unknown anywhere, or does not fit the model.
    """
    check_arguments(path, config, tokenizer, pooling, prompts)
    folder = None
    source: str | Mapping[str, Any]
    if path is not None:
        source = resolve_path(path)
        folder = read_sentence_transformers_folder(source, revision=revision)
        loaded_tokenizer = load_tokenizer(
            source if tokenizer is None else resolve_path(tokenizer),
            subfolder=folder.subfolder if folder is not None and tokenizer is None else "",
            revision=revision if tokenizer is None else None,
            trust_remote_code=trust_remote_code,
            lowercase=folder is not None and tokenizer is None and folder.lowercase,
        )
    else:
        loaded_tokenizer = load_tokenizer(resolve_path(str(tokenizer)), trust_remote_code=trust_remote_code)
        source = _complete_config(config or {}, loaded_tokenizer)
    subfolder = folder.subfolder if folder is not None else ""
    model = read_config(source, subfolder=subfolder, revision=revision, trust_remote_code=trust_remote_code)
    if tokenizer is not None and _vocabulary(loaded_tokenizer) > model.vocab_size:
        raise ValueError(
            f"The tokenizer {tokenizer!r} has token ids up to {_vocabulary(loaded_tokenizer) - 1}, but the model's "
            f"vocab_size is {model.vocab_size}. Set vocab_size to at least {_vocabulary(loaded_tokenizer)}, or "
            "leave it out."
        )

    pooling = _choose_pooling(path, pooling, folder)
    if max_length is None and path is not None and (described := read_model_folder(str(source))) is not None:
        max_length = described.max_length  # by role, where sentence-transformers has a single limit
    positions = position_limit(model)
    limits = _choose_limits(max_length, positions, folder, loaded_tokenizer)
    if prompts is None:
        prompts = folder.prompts if folder is not None else {}
    dense = folder.dense if folder is not None else ()
    return EncoderSettings(
        source=source,
        subfolder=subfolder,
        revision=revision,
        trust_remote_code=trust_remote_code,
        tokenization=Tokenization(
            loaded_tokenizer,
            prompts=prompts,
            max_length=limits,
            append_end=pooling == "last",
            positions=positions,
        ),
        pooling=pooling,
        dense=dense,
        dim=dense[-1].out_features if dense else int(model.hidden_size),
    )


def _vocabulary(tokenizer: Any) -> int:
    return max(tokenizer.get_vocab().values(), default=-1) + 1


def _complete_config(config: Mapping[str, Any], tokenizer: Any) -> dict[str, Any]:
    """Fill in what the tokenizer knows: the vocabulary's size and the padding token."""
    padding = tokenizer.pad_token_id
    if padding is not None and padding in {tokenizer.eos_token_id, tokenizer.sep_token_id}:
        padding = None  # the embedding of a padding token is never trained, and this one is also an end token
    return {"vocab_size": _vocabulary(tokenizer), "pad_token_id": padding, **config}


def _choose_pooling(
    path: str | None, pooling: PoolingName | None, folder: SentenceTransformersFolder | None
) -> PoolingName:
    found = folder.pooling if folder is not None else None
    if pooling is None and found is None:
        raise ValueError(
            f"Got no pooling, and {'a config' if path is None else repr(path)} does not say which. "
            f"Set pooling to one of {', '.join(get_args(PoolingName))}."
        )
    if pooling is not None and found is not None and pooling != found:
        warnings.warn(
            f"pooling {pooling!r} was asked for, but {path!r} was trained with {found!r}; using {pooling!r}.",
            stacklevel=2,
        )
    return pooling or found or "mean"


def _choose_limits(
    max_length: int | Mapping[str, int] | None,
    positions: int | None,
    folder: SentenceTransformersFolder | None,
    tokenizer: Any,
) -> dict[str, int]:
    if folder is not None and folder.max_length is not None:
        default = folder.max_length
    elif folder is not None and tokenizer.model_max_length < _NO_LIMIT:
        default = int(tokenizer.model_max_length)  # where sentence-transformers 6 keeps max_seq_length
    else:
        default = _DEFAULT_MAX_LENGTH
    default = default if positions is None else min(default, positions)
    if not isinstance(max_length, Mapping):
        max_length = dict.fromkeys(PROMPT_ROLES, default if max_length is None else max_length)
    for role in max_length:
        check_role(role, PROMPT_ROLES, "max_length")
    return {role: max_length.get(role, default) for role in PROMPT_ROLES}
