"""Assembled models that nobody trained: tiny backbones of several families, with two random adapters each."""

import dataclasses
import json
from pathlib import Path

import torch

from lightning_jv5 import Embedder
from lightning_jv5.data.cache import write_json
from lightning_jv5.export import assemble, write_sentence_transformers
from lightning_jv5.models import LoRA
from lightning_jv5.models.fingerprint import fingerprint_of
from lightning_jv5.models.lora import adapter_parameters, save_adapter
from lightning_jv5.models.model_folder import DESCRIPTION, ModelFolder
from lightning_jv5.models.pooling import PoolingName
from lightning_jv5.models.rope import rope_theta
from tests.tiny_models import save_tiny_backbone

PROMPTS = {
    None: {"query": "query : ", "document": ""},  # an adapter puts its own in place of none, too
    "retrieval": {"query": "what is : ", "document": "the document : "},
    "clustering": {"query": "document : ", "document": "document : "},
}


@dataclasses.dataclass(frozen=True)
class Family:
    """A kind of backbone, and how its texts are padded and pooled."""

    pooling: PoolingName
    padding_side: str
    theta: float | None = None


FAMILIES = {
    "bert": Family("cls", "left"),
    "modernbert": Family("mean", "right"),
    "eurobert": Family("mean", "right", 5000.0),
    "qwen3": Family("last", "left", 7000.0),
}


def write_assembled(folder: Path, family: str) -> str:
    """Write a model, two adapters and the folder that joins them; returns the last."""
    kind = FAMILIES[family]
    style = {"style": "bert"} if family != "qwen3" else {"end_token": False}
    tokenizer = {"padding_side": kind.padding_side, **style}
    backbone = save_tiny_backbone(folder / "backbone", family, tokenizer=tokenizer)
    model = Embedder(backbone, pooling=kind.pooling, prompts=PROMPTS[None], max_length=24)
    (folder / "base").mkdir()
    write_sentence_transformers(model, folder / "base", inference_theta=kind.theta)
    theta = rope_theta(model.backbone)
    common = {"max_length": model.tokenization.max_length, "dim": model.dim, "theta": theta, "inference_theta": theta}
    write_json(folder / "base" / DESCRIPTION, ModelFolder("model", PROMPTS[None], **common).to_plain())
    adapters = [task for task in PROMPTS if task is not None]
    for seed, task in enumerate(adapters):
        adapted = Embedder(str(folder / "base"), adapter=LoRA(task, rank=2, alpha=5.0))
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for weights in adapter_parameters(adapted.backbone, task).values():
                weights.copy_(torch.randn(weights.shape, generator=generator) * 0.2)
        (folder / task).mkdir()
        save_adapter(adapted.backbone, task, folder / task, base=str(folder / "base"))
        described = ModelFolder(
            "adapter",
            PROMPTS[task],
            task=task,
            base=str(folder / "base"),
            base_fingerprint=fingerprint_of(adapted.state_dict()),
            **common,
        )
        write_json(folder / task / DESCRIPTION, described.to_plain())
    assemble([str(folder / task) for task in adapters], str(folder / "assembled"))
    return str(folder / "assembled")


def texts_below(folder: Path) -> dict[str, str]:
    """Return what can be read in a folder, by the file's name."""
    endings = {".json", ".yaml", ".md", ".py", ".txt"}
    files = [path for path in folder.rglob("*") if path.suffix in endings]
    return {path.relative_to(folder).as_posix(): path.read_text(encoding="utf-8") for path in files}


def read(path: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads(path.read_text(encoding="utf-8"))
    return found
