"""A program without lightning_jv5 that loads model folders with the libraries they are meant for.

``python foreign_loading.py jobs.json output.safetensors``: jobs are ``[family, layout, task, folder]``.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from torch import Tensor
from transformers import AutoConfig, AutoModel

DIM, IDS = 8, [[2, 5, 6, 7, 9, 3], [2, 11, 8, 20, 21, 3]]
_EXTRA = {"model_type", "architectures", "task_names", "is_decoder", "transformers_version", "dtype"}


def merged(folder: str, task: str, texts: list[str]) -> dict[str, Tensor]:
    model = SentenceTransformer(folder, device="cpu")
    return {
        "query": torch.tensor(model.encode_query(texts)),
        "document": torch.tensor(model.encode_document(texts)),
        "default": torch.tensor(model.encode(texts)),
        "short": torch.tensor(model.encode_document(texts, truncate_dim=DIM, normalize_embeddings=True)),
        "bits": torch.tensor(model.encode_document(texts, precision="ubinary")),
        "int8": torch.tensor(model.encode_document(texts, precision="int8")),
    }


def switching(folder: str, tasks: list[str], texts: list[str], copy: str) -> dict[str, Tensor]:
    model = SentenceTransformer(folder, device="cpu", trust_remote_code=True)
    found = {}
    for task in [*tasks, *reversed(tasks)]:  # back again: what was used before must not matter
        for role in ("query", "document"):
            found[f"{task}/{role}"] = torch.tensor(model.encode(texts, task=task, prompt_name=role))
    found |= {"none/query": torch.tensor(model.encode_query(texts)), "none/document": torch.tensor(model.encode(texts))}
    for task in tasks:
        found[f"{task}/short"] = torch.tensor(
            model.encode(texts, task=task, truncate_dim=DIM, normalize_embeddings=True)
        )
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


def peft(folder: str, task: str) -> dict[str, Tensor]:
    model: Any = PeftModel.from_pretrained(AutoModel.from_pretrained(folder), f"{folder}/adapters/{task}").eval()
    with torch.no_grad():
        return {"tokens": model(input_ids=torch.tensor(IDS)).last_hidden_state}


def jina_v5(folder: str, task: str) -> dict[str, Tensor]:
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
    with torch.no_grad():
        return {"tokens": model(input_ids=torch.tensor(IDS)).last_hidden_state}


def main(jobs: str, output: str) -> None:
    plan = json.loads(Path(jobs).read_text())
    found: dict[str, Tensor] = {}
    for family, layout, task, folder in plan["jobs"]:
        if layout == "switching":
            tasks = sorted(path.name for path in Path(folder, "adapters").iterdir())
            got = switching(folder, tasks, plan["texts"], f"{folder}-copy")
        elif layout == "hub":
            got = from_hub(folder, plan["texts"])
        elif layout == "merged":
            got = merged(folder, task, plan["texts"])
        else:
            got = peft(folder, task) if layout == "peft" else jina_v5(folder, task)
        found |= {f"{family}/{layout}/{task}/{name}": tensor.contiguous() for name, tensor in got.items()}
    assert "lightning_jv5" not in sys.modules
    save_file(found, output)


if __name__ == "__main__":
    main(*sys.argv[1:])
