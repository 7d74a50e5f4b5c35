"""Two stages of a tiny model as YAML: distillation, and an adapter on what it exported."""

import json
from pathlib import Path
from typing import Any

import yaml

from tests.tiny_models import TEXTS, save_tiny_backbone

TEACHER_DIM = 32


def write_stages(folder: Path, *, steps: int = 3) -> None:
    """Write ``distill.yaml``, ``adapter.yaml``, their models and their pairs."""
    pairs = [{"query": query, "document": document} for query in TEXTS for document in TEXTS if query != document]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    save_tiny_backbone(folder / "base", "qwen3", max_position_embeddings=128, tokenizer={"end_token": False})
    save_tiny_backbone(folder / "teacher", "bert", seed=1)
    source = {"class_path": "lightning_jv5.data.LocalFiles", "init_args": {"paths": str(folder / "pairs.jsonl")}}
    common: dict[str, Any] = {
        "data": {"train": source, "batch_size": 8},
        "trainer": {
            "max_steps": steps,
            "accelerator": "cpu",
            "logger": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
        },
    }
    thetas = {"theta": 100.0, "inference_theta": 5000.0}
    prompts = {"query": "query : ", "document": "document : "}
    distillation = "lightning_jv5.losses.EmbeddingDistillation"
    student = {
        "path": str(folder / "base"),
        "pooling": "last",
        "prompts": prompts,
        "max_length": {"query": 12, "document": 16},
    }
    projection = {"input_dim": 32, "output_dim": TEACHER_DIM}
    distill = {
        "model": {
            "student": {**student, **thetas},
            "teacher": {"path": str(folder / "teacher"), "pooling": "mean"},
            "objective": {"class_path": distillation, "init_args": {"projection": projection}},
            "lr": 1e-3,
        }
    }
    temperature = {"class_path": "lightning_jv5.losses.LearnableTemperature"}
    contrast = {"class_path": "lightning_jv5.losses.InfoNCE", "init_args": {"temperature": temperature}}
    terms = {
        "contrast": {"loss": contrast},
        "distill": {"loss": {"class_path": distillation, "init_args": {"projection": {"path": "{from}"}}}},
    }
    adapter = {
        "model": {
            "student": {"path": "{from}", "adapter": {"name": "retrieval", "rank": 4}, **thetas, "theta": 200.0},
            "teacher": {"path": str(folder / "teacher"), "pooling": "mean"},
            "objective": {"terms": terms},
            "lr": 1e-2,
        }
    }
    for name, content in {"distill": distill, "adapter": adapter}.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(common | content, sort_keys=False))
