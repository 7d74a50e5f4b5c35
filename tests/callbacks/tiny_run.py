"""A run small enough for a test: a student of 32 coordinates, a teacher of 24, and a corpus of seven texts."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import torch
from lightning.pytorch import Trainer

from lightning_jv5 import EmbeddingDataModule, EmbeddingModule
from lightning_jv5.data.source import Source
from lightning_jv5.losses import EmbeddingBatch, Loss
from lightning_jv5.models import Embedder, Teacher
from lightning_jv5.tasks import ReadyRetrieval, RetrievalData
from tests.tiny_models import TEXTS, save_tiny_sentence_transformer

STUDENT_DIM, TEACHER_DIM = 32, 24
DOCUMENTS = [*TEXTS, "blue"]
QUERIES = ["where is the cat", "what is a dog", "who runs | fast"]


class TinyPairs(Source):
    def load(self) -> datasets.Dataset:
        return datasets.Dataset.from_dict({"query": QUERIES * 4, "document": [*TEXTS, *TEXTS]})


class TinyCorpus(Source):
    def load(self) -> datasets.Dataset:
        return datasets.Dataset.from_dict(
            {"text": [f"{text} {extra}" for text in TEXTS for extra in ("", "cat", "dog")]}
        )


class PullTogether(Loss):
    """Something to minimise that needs no teacher."""

    def forward(self, batch: EmbeddingBatch) -> torch.Tensor:
        assert batch.document is not None
        return (batch.query - batch.document).square().mean()


def tiny_module(folder: Path, *, teacher: bool = True) -> EmbeddingModule:
    student = save_tiny_sentence_transformer(folder / "student", seed=1)
    large = save_tiny_sentence_transformer(folder / "teacher", seed=2, dense=TEACHER_DIM) if teacher else None
    return EmbeddingModule(
        Embedder(student), PullTogether(), Teacher(large) if large else None, optimizer=LargeSteps(), seed=3
    )


class LargeSteps:
    """Makes an optimizer whose every step shows in the scores."""

    def __call__(self, parameters: Any) -> torch.optim.Optimizer:
        return torch.optim.AdamW(parameters, lr=0.05)


def tiny_task(main_metric: str = "mrr@10") -> ReadyRetrieval:
    judgements = {"q0": {"d0": 2, "d4": 1}, "q1": {"d5": 1}, "q2": {"d3": 1}}
    ids = [f"d{row}" for row in range(len(DOCUMENTS))]
    return ReadyRetrieval(
        RetrievalData(["q0", "q1", "q2"], QUERIES, ids, DOCUMENTS, judgements), main_metric=main_metric
    )


def tiny_datamodule(**changes: Any) -> EmbeddingDataModule:
    settings: dict[str, Any] = {
        "train": TinyPairs(),
        "val": {"small": tiny_task()},
        "test": {"small": tiny_task()},
        "predict": TinyCorpus(),
        "batch_size": 4,
        "evaluation_batch_size": 2,
    }
    return EmbeddingDataModule(**settings | changes)


def tiny_trainer(folder: Path, callbacks: Sequence[Any], **changes: Any) -> Trainer:
    settings: dict[str, Any] = {
        "max_steps": 2,
        "accelerator": "cpu",
        "devices": 1,
        "logger": False,
        "default_root_dir": folder,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
        "callbacks": list(callbacks),
        "val_check_interval": 2,
        "num_sanity_val_steps": 1,
        "log_every_n_steps": 1,
        "use_distributed_sampler": False,
    }
    return Trainer(**settings | changes)
