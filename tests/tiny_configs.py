"""A tiny run as the YAML that a user would write, with its models and data, made offline."""

import json
from pathlib import Path
from typing import Any

import yaml

from lightning_jv5 import EmbeddingDataModule, EmbeddingModule
from lightning_jv5.losses import EmbeddingBatch, Loss
from tests.tiny_models import WORDS, save_tiny_tokenizer, tiny_config


class DownstreamModule(EmbeddingModule):
    """What a user's own project would define."""

    def __init__(self, *, extra: int = 1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.extra = extra


class DownstreamData(EmbeddingDataModule):
    """A data module of a user's own project."""


class PickyLoss(Loss):
    """A loss that refuses a setting of its own, and breaks in a way that nobody foresaw on another."""

    def __init__(self, margin: float = 1.0) -> None:
        super().__init__()
        if margin < 0:
            raise ValueError(f"Got margin {margin}; need a positive one.")
        if margin > 100:
            raise RuntimeError("nobody foresaw this")

    def forward(self, batch: EmbeddingBatch) -> Any:
        return batch.query.sum()


def write_pairs(path: Path, count: int = 8) -> Path:
    """Write query and document pairs as JSON lines."""
    words = WORDS.split()
    rows = [
        {"query": f"{words[i]} {words[i + 1]}", "document": f"{words[i + 1]} {words[i]} {words[i + 2]}"}
        for i in range(count)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def write_config(folder: Path, name: str = "tiny.yaml") -> Path:
    """Write a config that trains a tiny student on a tiny teacher, and all that it needs."""
    tokenizer = save_tiny_tokenizer(folder / "tokenizer")
    pairs = str(write_pairs(folder / "pairs.jsonl"))
    model = {"config": tiny_config("bert"), "tokenizer": str(tokenizer), "pooling": "mean"}
    files = {"class_path": "lightning_jv5.data.LocalFiles", "init_args": {"paths": pairs}}
    config = {
        "seed_everything": 0,
        "model": {
            "student": dict(model),
            "teacher": dict(model),
            "objective": {"terms": {"distill": {"loss": {"class_path": "lightning_jv5.losses.EmbeddingDistillation"}}}},
            "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 1e-3}},
        },
        "data": {
            "train": files,
            "batch_size": 2,
            "val": {"pairs": {"class_path": "lightning_jv5.RetrievalTask", "init_args": {"pairs": files}}},
        },
        "trainer": {
            "accelerator": "cpu",
            "max_epochs": 1,
            "num_sanity_val_steps": 0,
            "enable_progress_bar": False,
            "log_every_n_steps": 1,
        },
    }
    path = folder / name
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    return path


def with_tiny_docstrings(node: Any) -> Any:
    """Make the docstring sources of a shipped config small, wherever they are, and the run two steps."""
    packages = ["jsonargparse", "fsspec", "torchmetrics", "click"]
    small: dict[str, dict[str, Any]] = {
        "Docstrings": {"packages": packages, "heldout": 40},
        "DocstringLabels": {"packages": packages, "heldout_per_label": 8, "min_per_label": 20},
        "DocstringSimilarity": {"packages": packages, "heldout": 40, "rows": 40},
    }
    if isinstance(node, list):
        return [with_tiny_docstrings(item) for item in node]
    if not isinstance(node, dict):
        return node
    node = {key: with_tiny_docstrings(item) for key, item in node.items()}
    kind = str(node.get("class_path", "")).rpartition(".")[2]
    if kind in small:
        node["init_args"] = {key: value for key, value in node["init_args"].items() if key != "rows"} | small[kind]
        if kind == "Docstrings" and node["init_args"]["split"] == "train":
            node["init_args"]["rows"] = 64
    if "batch_size" in node:
        node["batch_size"] = 8
    if "trainer" in node:
        node["trainer"] |= {"max_steps": 2, "val_check_interval": None, "limit_train_batches": 2}
    return node
