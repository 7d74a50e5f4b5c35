"""Tiny tokenizers and models, made offline, that the tests of every room may use."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import nn

WORDS = "the a cat dog sat on mat red blue green house tree runs fast slow over under query document what is where who"
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[END]"]
VOCABULARY = {token: index for index, token in enumerate([*SPECIAL, *WORDS.split(), ":"])}
TEXTS = [
    "the cat sat on the red mat",
    "a dog",
    "where is the blue house under the tree over the green mat",
    "who runs fast",
    "cat",
    "the slow dog sat on a mat",
]
_FAMILY = {
    "bert": {},
    "roberta": {},
    "mpnet": {},
    "modernbert": {"cls_token_id": 2, "sep_token_id": 3, "bos_token_id": 2, "eos_token_id": 3},
    "qwen3": {"num_key_value_heads": 2, "head_dim": 8},
    "eurobert": {"num_key_value_heads": 2, "bos_token_id": 2, "eos_token_id": 3, "mask_token_id": 1},
}


def save_tiny_tokenizer(
    folder: Path | str,
    *,
    end_token: bool = True,
    padding_side: str = "right",
    style: str = "end",
    eos: bool = True,
    model_max_length: int = 64,
) -> str:
    """Save a word-level tokenizer.

    Args:
        folder: Where to.
        end_token: Whether the post-processor adds special tokens.
        padding_side: ``"right"`` or ``"left"``.
        style: ``"end"`` appends ``[END]`` (which is not the eos token), ``"bert"`` frames with ``[CLS]`` and ``[SEP]``.
        eos: Whether the tokenizer names an eos token, ``[SEP]``; without, it names no end token at all.
        model_max_length: The limit that the tokenizer names.
    """
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel(VOCABULARY, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    if end_token:
        template = "$A [END]" if style == "end" else "[CLS] $A [SEP]"
        tokens = [(token, VOCABULARY[token]) for token in SPECIAL if token in template]
        tokenizer.post_processor = processors.TemplateProcessing(single=template, special_tokens=tokens)
    named = {"pad_token": "[PAD]", "unk_token": "[UNK]"}
    if eos:
        named["eos_token"] = "[SEP]"
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, padding_side=padding_side, model_max_length=model_max_length, **named
    ).save_pretrained(folder)
    return str(folder)


def tiny_config(family: str = "bert", **overrides: Any) -> dict[str, Any]:
    """Return the config of a tiny model, as ``Embedder(config=...)`` takes it."""
    return {
        "model_type": family,
        "vocab_size": 100,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "max_position_embeddings": 64,
        "pad_token_id": 0,
        **_FAMILY[family],
        **overrides,
    }


def save_tiny_backbone(
    folder: Path | str,
    family: str = "bert",
    *,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
    tokenizer: dict[str, Any] | None = None,
    **overrides: Any,
) -> str:
    """Save a tiny transformer with random weights, and its tokenizer (options in ``tokenizer``), in one folder."""
    from transformers import AutoConfig, AutoModel

    settings = tiny_config(family, **overrides)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoModel.from_config(AutoConfig.for_model(settings.pop("model_type"), **settings))
        for weights in model.parameters():  # larger than the usual 0.02, so that differences show
            if weights.ndim > 1:
                nn.init.normal_(weights, std=0.2)
    model.to(dtype).save_pretrained(folder)
    save_tiny_tokenizer(folder, **(tokenizer or {}))
    return str(folder)


def save_tiny_sentence_transformer(
    folder: Path | str,
    family: str = "bert",
    *,
    pooling: str = "mean",
    old_keys: bool = False,
    max_seq_length: int | None = 16,
    prompts: dict[str, str] | None = None,
    default_prompt_name: str | None = None,
    dense: int | None = None,
    activation: str = "torch.nn.modules.activation.Tanh",
    normalize: bool = True,
    **backbone: Any,
) -> str:
    """Save a tiny model as sentence-transformers lays it out; ``pooling`` in its words: ``mean, cls, lasttoken``."""
    folder = Path(folder)
    save_tiny_backbone(folder, family, **backbone)
    kinds = ["Transformer", "Pooling", *["Dense"] * (dense is not None), *["Normalize"] * normalize]
    paths = ["", *(f"{position}_{kind}" for position, kind in enumerate(kinds) if position)]
    modules = [
        {"idx": idx, "name": str(idx), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for idx, (kind, path) in enumerate(zip(kinds, paths, strict=True))
    ]
    _write(folder / "modules.json", modules)
    if max_seq_length is not None:
        _write(folder / "sentence_bert_config.json", {"max_seq_length": max_seq_length, "do_lower_case": False})
    _write(
        folder / "config_sentence_transformers.json",
        {"prompts": prompts or {}, "default_prompt_name": default_prompt_name},
    )
    pooling_config: dict[str, Any] = {"word_embedding_dimension": 32}
    if old_keys:
        names = {"mean": "mean_tokens", "cls": "cls_token", "lasttoken": "lasttoken", "max": "max_tokens"}
        pooling_config |= {f"pooling_mode_{name}": mode == pooling for mode, name in names.items()}
    else:
        pooling_config |= {"pooling_mode": pooling, "include_prompt": True}
    _write(folder / "1_Pooling" / "config.json", pooling_config)
    if dense is not None:
        generator = torch.Generator().manual_seed(1)
        weights = {
            "linear.weight": torch.randn(dense, 32, generator=generator),
            "linear.bias": torch.randn(dense, generator=generator),
        }
        config = {"in_features": 32, "out_features": dense, "bias": True, "activation_function": activation}
        _write(folder / "2_Dense" / "config.json", config)
        save_file(weights, folder / "2_Dense" / "model.safetensors")
    return str(folder)


def _write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
