"""Writing an embedder as sentence-transformers lays out a model, without sentence-transformers."""

import copy
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lightning_jv5.data.cache import write_json
from lightning_jv5.models.backbone import quiet_transformers
from lightning_jv5.models.rope import set_rope_theta
from lightning_jv5.models.sentence_transformers_folder import ACTIVATIONS, POOLING
from lightning_jv5.models.text_encoder import TextEncoder
from lightning_jv5.models.tokenization import Tokenization

_MODULE = "sentence_transformers.models."


def write_sentence_transformers(
    embedder: TextEncoder, folder: Path, *, inference_theta: float | None = None, dtype: torch.dtype = torch.float32
) -> None:
    """Write weights, tokenizer, pooling, Dense layers and prompts; the embedder stays as it is, but for its theta.

    Args:
        embedder: Without adapters.
        folder: Where to; exists.
        inference_theta: RoPE theta of the written config, if any.
        dtype: Of the written weights of the backbone.

    Raises:
        ValueError: If a layer after pooling is not one that the layout knows.
    """
    if inference_theta is not None:
        set_rope_theta(embedder.backbone, inference_theta)
    backbone: Any = copy.deepcopy(embedder.backbone).to("cpu", dtype)
    backbone.config.dtype = dtype
    with quiet_transformers():
        backbone.save_pretrained(str(folder))
        tokenizer_of(embedder.tokenization).save_pretrained(str(folder))
    kinds = ["Transformer", "Pooling", *["Dense"] * len(_dense_layers(embedder)), *["Normalize"] * embedder.normalize]
    paths = ["", *(f"{place}_{kind}" for place, kind in enumerate(kinds) if place)]
    write_json(
        folder / "modules.json",
        [
            {"idx": place, "name": str(place), "path": path, "type": f"{_MODULE}{kind}"}
            for place, (kind, path) in enumerate(zip(kinds, paths, strict=True))
        ],
    )
    names = {ours: theirs for theirs, ours in POOLING.items()}
    width = int(backbone.config.hidden_size)
    pooling = {"word_embedding_dimension": width, "pooling_mode": names[embedder.pooling], "include_prompt": True}
    write_json(folder / "1_Pooling" / "config.json", pooling)
    for layer, path in zip(_dense_layers(embedder), paths[2:], strict=False):
        _write_dense(layer, folder / path)
    if embedder.normalize:
        (folder / paths[-1]).mkdir()
    limits = embedder.tokenization.max_length
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": max(limits.values()), "do_lower_case": False})
    prompts = dict(embedder.tokenization.prompts) if any(embedder.tokenization.prompts.values()) else {}
    write_json(
        folder / "config_sentence_transformers.json",
        {
            "model_type": "SentenceTransformer",
            "prompts": prompts,
            "default_prompt_name": "document" if prompts else None,
            "similarity_fn_name": "cosine",
        },
    )


def tokenizer_of(tokenization: Tokenization) -> Any:
    """Return a tokenizer that gives by itself what a tokenization gives: the end token that we append, too."""
    from tokenizers import Tokenizer, processors

    tokenizer: Any = copy.deepcopy(tokenization.tokenizer)
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.no_padding()
    tokenizer.model_max_length = max(tokenization.max_length.values())
    tokenizer.padding_side = "right"  # as we compute: on the left it would shift absolute positions
    if tokenization.appended:
        [end] = tokenization.appended
        token = tokenizer.convert_ids_to_tokens(end)
        append = processors.TemplateProcessing(single="$A " + token, special_tokens=[(token, end)])
        backend: Tokenizer = tokenizer.backend_tokenizer
        steps = [backend.post_processor, append] if backend.post_processor is not None else [append]
        backend.post_processor = processors.Sequence(steps)
    return tokenizer


def _dense_layers(embedder: TextEncoder) -> list[nn.Sequential]:
    return list(embedder.dense.children())  # type: ignore[arg-type]


def _write_dense(layer: nn.Sequential, folder: Path) -> None:
    from safetensors.torch import save_file

    linear, activation = layer
    name = next((name for name, kind in ACTIVATIONS.items() if type(activation) is kind), None)
    if not isinstance(linear, nn.Linear) or name is None:
        raise ValueError(
            f"Got {linear} and {activation} after pooling; need a linear layer and one of {', '.join(ACTIVATIONS)}."
        )
    config = {
        "in_features": linear.in_features,
        "out_features": linear.out_features,
        "bias": linear.bias is not None,
        "activation_function": name,
    }
    write_json(folder / "config.json", config)
    tensors = {f"linear.{key}": tensor.cpu().contiguous() for key, tensor in linear.state_dict().items()}
    save_file(tensors, str(folder / "model.safetensors"))
