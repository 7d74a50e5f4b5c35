"""A program without lightning_jv5 that loads model folders with the libraries they are meant for.

``python foreign_loading.py plan.json output.safetensors``: the plan has ``jobs``, which are ``[family, layout, task,
folder]``, the ``texts``, and by task the ``prompts`` that a reader takes from the card.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from peft import PeftModel
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling
from sentence_transformers.util.quantization import quantize_embeddings
from torch import Tensor
from transformers import AutoConfig, AutoModel, AutoTokenizer

DIM, IDS = 8, [[2, 5, 6, 7, 9, 3], [2, 11, 8, 20, 21, 3]]
OPTIONS: dict[str, dict[str, Any]] = {
    "": {},
    "/short": {"truncate_dim": DIM, "normalize_embeddings": True},
    "/bits": {"precision": "ubinary"},
    "/signed_bits": {"precision": "binary"},
    "/int8": {"precision": "int8"},
}
_EXTRA = {"model_type", "architectures", "task_names", "is_decoder", "transformers_version", "dtype"}


def cases(encode: Callable[..., Any], tokenizer: Any, texts: list[str]) -> dict[str, Tensor]:
    """All that is compared of one task; ``encode`` takes a role, and options as ``SentenceTransformer.encode`` does."""
    found, written = {}, tokenizer.padding_side
    for role in ("query", "document"):
        for name, options in OPTIONS.items():
            found[f"{role}{name}"] = torch.as_tensor(encode(role, **options))
        tokenizer.padding_side = "left"
        assert tokenizer(texts, padding=True)["attention_mask"][1][0] == 0
        found[f"{role}/left"] = torch.as_tensor(encode(role))
        tokenizer.padding_side = written
    return found


def plain(folder: str, texts: list[str]) -> dict[str, Tensor]:
    model = SentenceTransformer(folder, device="cpu")

    def encode(role: str, **options: Any) -> Any:
        return getattr(model, f"encode_{role}")(texts, **options)

    return cases(encode, model.tokenizer, texts) | {"default": torch.tensor(model.encode(texts))}


def switching(folder: str, tasks: list[str], texts: list[str], copy: str) -> dict[str, Tensor]:
    model = SentenceTransformer(folder, device="cpu", trust_remote_code=True)
    found = {}
    for task in [*tasks, None, *reversed(tasks)]:  # back again: what was used before must not matter

        def encode(role: str, task: str | None = task, **options: Any) -> Any:
            if task is None:
                return getattr(model, f"encode_{role}")(texts, **options)
            return model.encode(texts, task=task, prompt_name=role, **options)

        found |= {f"{task}/{name}": tensor for name, tensor in cases(encode, model.tokenizer, texts).items()}
    found["default"] = torch.tensor(model.encode(texts))
    try:
        model.encode(texts, task="cooking")
    except ValueError as error:
        found["refused"] = torch.tensor(list(str(error).encode()), dtype=torch.uint8)
    model.save(copy, create_model_card=False)
    preset = {"default_task": tasks[-1]}
    again = SentenceTransformer(copy, device="cpu", trust_remote_code=True, model_kwargs=preset)
    found["preset"] = torch.tensor(again.encode_query(texts))
    return found


def from_hub(name: str, texts: list[str]) -> dict[str, Tensor]:
    model = SentenceTransformer(name, device="cpu", trust_remote_code=True)
    return {"retrieval": torch.tensor(model.encode(texts, task="retrieval"))}


def with_transformers(model: Any, folder: str, prompts: dict[str, str], texts: list[str]) -> dict[str, Tensor]:
    """Prompts, tokenizer and pooling around a transformer, as the folder's files say."""
    tokenizer, pooling = AutoTokenizer.from_pretrained(folder), Pooling.load(folder, subfolder="1_Pooling")

    def encode(
        role: str, truncate_dim: int | None = None, normalize_embeddings: bool = True, precision: Any = "float32"
    ) -> Any:
        prompted = [prompts[role] + text for text in texts]
        batch = tokenizer(prompted, padding=True, truncation=True, return_tensors="pt")
        batch.pop("token_type_ids", None)
        with torch.no_grad():
            tokens = model(**batch).last_hidden_state
        pooled = pooling({"token_embeddings": tokens, "attention_mask": batch["attention_mask"]})["sentence_embedding"]
        embeddings = F.normalize(pooled[:, :truncate_dim], dim=-1)
        return quantize_embeddings(embeddings.numpy(), precision=precision)

    with torch.no_grad():
        tokens = model(input_ids=torch.tensor(IDS)).last_hidden_state
    return cases(encode, tokenizer, texts) | {"tokens": tokens}


def peft(folder: str, task: str) -> Any:
    return PeftModel.from_pretrained(AutoModel.from_pretrained(folder), f"{folder}/adapters/{task}").eval()


def jina_v5(folder: str, task: str) -> Any:
    """As an engine does: base weights by name, plus B A alpha / r, in a plain model built from the config."""
    settings = json.loads(Path(folder, "config.json").read_text())
    assert "auto_map" not in settings
    assert settings["architectures"] == ["JinaEmbeddingsV5Model"]
    assert settings["model_type"] == "jina_embeddings_v5"
    own = {key: value for key, value in settings.items() if key not in _EXTRA}
    model = AutoModel.from_config(AutoConfig.for_model("qwen3" if settings["is_decoder"] else "eurobert", **own)).eval()
    adapter = load_file(f"{folder}/adapters/{task}/adapter_model.safetensors")
    lora = json.loads(Path(folder, "adapters", task, "adapter_config.json").read_text())
    weights = load_file(f"{folder}/model.safetensors")
    pairs: dict[str, dict[str, Tensor]] = {}
    for key, tensor in adapter.items():
        assert key.startswith("base_model.model.")
        name, kind = key.removeprefix("base_model.model.").split(".lora_")
        pairs.setdefault(f"{name}.weight", {})[kind] = tensor
    for name, pair in pairs.items():
        weights[name] = weights[name] + pair["B.weight"] @ pair["A.weight"] * (lora["lora_alpha"] / lora["r"])
    model.load_state_dict(weights)
    return model


def main(plan_file: str, output: str) -> None:
    plan = json.loads(Path(plan_file).read_text())
    texts = plan["texts"]
    found: dict[str, Tensor] = {}
    for family, layout, task, folder in plan["jobs"]:
        if layout == "switching":
            tasks = sorted(path.name for path in Path(folder, "adapters").iterdir())
            got = switching(folder, tasks, texts, f"{folder}-copy")
        elif layout == "hub":
            got = from_hub(folder, texts)
        elif layout in ("merged", "assembled"):
            got = plain(folder, texts)
        else:
            model = jina_v5(folder, task) if layout == "jina_v5" else peft(folder, task)
            got = with_transformers(model, folder, plan["prompts"][task], texts)
        found |= {f"{family}/{layout}/{task}/{name}": tensor.contiguous() for name, tensor in got.items()}
    assert "lightning_jv5" not in sys.modules
    save_file(found, output)


if __name__ == "__main__":
    main(*sys.argv[1:])
