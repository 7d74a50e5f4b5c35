"""Tiny sources, tasks, modules and trainers, made offline, that the tests of training may use."""

import math
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, Features, List, Value
from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_jv5 import EmbeddingDataModule, EmbeddingModule
from lightning_jv5.data.cache import fingerprint
from lightning_jv5.data.source import Source
from lightning_jv5.losses import EmbeddingBatch, EmbeddingDistillation, Loss, Objective, Term
from lightning_jv5.models import Embedder, Projection, Teacher
from lightning_jv5.tasks import ReadyRetrieval, RetrievalData
from tests.tiny_models import WORDS, save_tiny_tokenizer, tiny_config

TEACHER_DIM = 48


def tiny_texts(count: int, seed: int) -> list[str]:
    """Sentences of one to eight words, none alike."""
    generator = torch.Generator().manual_seed(seed)
    words, texts = WORDS.split(), {}
    while len(texts) < count:
        length = int(torch.randint(1, 9, (), generator=generator))
        picked = torch.randint(len(words), (length,), generator=generator).tolist()
        texts[" ".join(words[word] for word in picked)] = None
    return list(texts)


class TinyPairs(Source):
    """Queries and documents, none alike."""

    def __init__(self, rows: int = 12) -> None:
        self.rows = rows

    def load(self) -> Dataset:
        texts = tiny_texts(2 * self.rows, seed=0)
        rows = Dataset.from_dict({"query": texts[: self.rows], "document": texts[self.rows :]})
        rows._fingerprint = fingerprint("tiny pairs", self.rows)
        return rows


class TinyTexts(Source):
    """Texts without a role."""

    def __init__(self, rows: int = 7, column: str = "text") -> None:
        self.rows, self.column = rows, column

    def load(self) -> Dataset:
        rows = Dataset.from_dict({self.column: tiny_texts(self.rows, seed=1)})
        rows._fingerprint = fingerprint("tiny texts", self.rows, self.column)
        return rows


class TinyVectors(TinyPairs):
    """Queries and documents with random teacher vectors."""

    def load(self) -> Dataset:
        generator = torch.Generator().manual_seed(2)
        rows = super().load()
        for column in ("query", "document"):
            vectors = torch.randn(self.rows, TEACHER_DIM, generator=generator).half()
            features = Features({f"{column}_teacher": List(Value("float16"), length=TEACHER_DIM)})
            added = Dataset.from_dict({f"{column}_teacher": list(vectors.numpy())}, features=features)
            rows = rows.add_column(f"{column}_teacher", added.data.column(0).combine_chunks())
        rows._fingerprint = fingerprint("tiny vectors", self.rows)
        return rows


class TinyLabelled(Source):
    """Texts with a label each."""

    def __init__(self, labels: str = "abcabcabacbaa") -> None:
        self.labels = labels

    def load(self) -> Dataset:
        texts = tiny_texts(len(self.labels), seed=6)
        rows = Dataset.from_dict({"text": texts, "label": list(self.labels)})
        rows._fingerprint = fingerprint("tiny labelled", self.labels)
        return rows


class Constant(Loss):
    """A finite loss with a fine gradient, to stand beside a broken one."""

    def forward(self, batch: EmbeddingBatch) -> torch.Tensor:
        return batch.query.mean()


class InfiniteLoss(Loss):
    """Its value is not finite."""

    def forward(self, batch: EmbeddingBatch) -> torch.Tensor:
        return batch.query.sum() * math.inf


class SqrtAtZero(Loss):
    """Its value is finite, its gradient is not."""

    def forward(self, batch: EmbeddingBatch) -> torch.Tensor:
        return (batch.query - batch.query.detach()).sum().abs().sqrt()


def tiny_student(folder: Path, **settings: Any) -> Embedder:
    """Return a student whose weights are the same every time."""
    tokenizer = save_tiny_tokenizer(folder / "tokenizer")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Embedder(
            **{
                "config": tiny_config(num_hidden_layers=1),
                "tokenizer": tokenizer,
                "pooling": "mean",
                "prompts": {"query": "query : ", "document": "document : "},
                "dropout": 0.0,
                **settings,
            }
        )


def tiny_teacher(folder: Path, **settings: Any) -> Teacher:
    """Return a teacher that is wider than the student, and has a tokenizer with other special tokens."""
    config = tiny_config("eurobert", hidden_size=TEACHER_DIM, num_hidden_layers=1)
    tokenizer = save_tiny_tokenizer(folder / "teacher_tokenizer", style="bert")
    return Teacher(config=config, tokenizer=tokenizer, pooling="mean", **settings)


def tiny_objective() -> Objective:
    """Return the distillation objective."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return Objective({"distill": Term(EmbeddingDistillation(Projection(32, TEACHER_DIM)))})


def sgd(parameters: Any) -> torch.optim.Optimizer:
    """An optimizer that hides nothing: the step is the gradient."""
    return torch.optim.SGD(parameters, lr=0.1)


def tiny_module(folder: Path, *, dropout: float = 0.0, **settings: Any) -> EmbeddingModule:
    """Return a module whose rows bring teacher vectors, unless it is given a teacher."""
    return EmbeddingModule(
        **{"student": tiny_student(folder, dropout=dropout), "objective": tiny_objective(), "lr": 1e-3, **settings}
    )


def tiny_task(documents: int = 6) -> ReadyRetrieval:
    """Return a retrieval task whose documents are more than one batch of four."""
    texts = tiny_texts(documents + 3, seed=3)
    return ReadyRetrieval(
        RetrievalData(
            ["q0", "q1", "q2"],
            texts[:3],
            [f"d{row}" for row in range(documents)],
            texts[3:],
            {f"q{row}": {f"d{row}": 1} for row in range(3)},
        )
    )


def tiny_data(**settings: Any) -> EmbeddingDataModule:
    """Return three batches of four rows and a validation task."""
    return EmbeddingDataModule(
        **{
            "train": TinyVectors(),
            "val": {"tiny": tiny_task()},
            "batch_size": 4,
            "evaluation_batch_size": 4,
            **settings,
        }
    )


def quiet_trainer(folder: Path, **settings: Any) -> Trainer:
    """Return a CPU trainer that writes nothing unless told to."""
    return Trainer(
        **{
            "accelerator": "cpu",
            "devices": 1,
            "logger": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "enable_checkpointing": False,
            "num_sanity_val_steps": 0,
            "use_distributed_sampler": False,
            "default_root_dir": folder,
            **settings,
        }
    )


class Recorder(Callback):
    """Keeps what every training batch saw and gave."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.tokens: list[list[int]] = []
        self.rates: list[list[float]] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self.tokens.append(batch.texts["query"].token_ids.tolist())
        self.rates.append([group["lr"] for group in trainer.optimizers[0].param_groups])

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.losses.append(float(trainer.callback_metrics["train/loss"]))
