"""Folders of vectors, embedded here or in processes that may be killed, or be several ranks of one run."""

import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch
from datasets import Dataset
from torch import Tensor

from lightning_jv5.data import Source
from lightning_jv5.data.cache import fingerprint
from lightning_jv5.data.embed_columns import embed_columns
from lightning_jv5.data.vector_manifest import VectorManifest
from lightning_jv5.models import Teacher
from tests.tiny_data import TEACHER_DIM, tiny_texts
from tests.tiny_models import save_tiny_tokenizer, tiny_config

COLUMNS = ["query", "document", "negatives"]
PROMPTS = {"query": "query : ", "document": "document : "}


class TinyTuples(Source):
    """Queries, documents, and one to three negatives each; half of the queries come twice."""

    def __init__(self, rows: int = 10) -> None:
        self.rows = rows

    def load(self) -> Dataset:
        texts = tiny_texts(5 * self.rows, seed=4)
        starts = range(2 * self.rows, 3 * self.rows)
        rows = Dataset.from_dict(
            {
                "query": [texts[row // 2] for row in range(self.rows)],
                "document": texts[self.rows : 2 * self.rows],
                "negatives": [texts[start : start + 1 + row % 3] for row, start in enumerate(starts)],
                "id": list(range(self.rows)),
            }
        )
        rows._fingerprint = fingerprint("tiny tuples", self.rows)
        return rows


class WatchedTeacher(Teacher):
    """Keeps the texts that it encodes; may give a vector that is not finite, or kill the process, at a text."""

    broken_at: str | None = None
    killed_at: str | None = None

    def encode(
        self, texts: Sequence[str], role: str = "document", *, truncate_dim: int | None = None, progress: bool = False
    ) -> Tensor:
        self.__dict__.setdefault("seen", []).extend((role, text) for text in texts)
        if self.killed_at in texts:
            os.kill(os.getpid(), signal.SIGKILL)
        embeddings = super().encode(texts, role, truncate_dim=truncate_dim, progress=progress)
        if self.broken_at in texts:
            embeddings[texts.index(self.broken_at), 1] = torch.nan
        return embeddings

    @property
    def texts(self) -> list[tuple[str, str]]:
        seen: list[tuple[str, str]] = self.__dict__.get("seen", [])
        return seen


def watched_teacher(folder: Path, **settings: Any) -> WatchedTeacher:
    """Return a teacher with prompts; its weights are the same every time."""
    config = tiny_config("eurobert", hidden_size=TEACHER_DIM, num_hidden_layers=1)
    tokenizer = save_tiny_tokenizer(folder / "tokenizer", style="bert")
    return WatchedTeacher(
        **{"config": config, "tokenizer": tokenizer, "pooling": "mean", "prompts": PROMPTS, **settings}
    )


class OtherRows(TinyTuples):
    """Rows of which every rank has another version."""

    def load(self) -> Dataset:
        rows = super().load()
        rows._fingerprint = f"those of rank {os.environ['RANK']}"
        return rows


def embed_run(
    folder: Path, output: str, killed_at: str | None = None, source: type[Source] = TinyTuples, **settings: Any
) -> None:
    """Embed on as many ranks as the process group has, and write down how many texts this one encoded."""
    rank = os.environ.get("RANK", "0")
    teacher = watched_teacher(folder / f"rank{rank}")
    teacher.killed_at = killed_at
    try:
        embed_columns(source(), teacher, str(folder / output.format(rank)), rows_per_shard=3, **settings)
    except (ValueError, RuntimeError) as error:
        (folder / f"error{rank}.txt").write_text(str(error))
    (folder / f"count{rank}.txt").write_text(str(len(teacher.texts)))


def embed(tmp_path: Path, output: str = "out", source: Source | None = None, **settings: Any) -> VectorManifest:
    model = settings.pop("model", None) or watched_teacher(tmp_path)
    return embed_columns(source or TinyTuples(), model, str(tmp_path / output), **{"rows_per_shard": 4, **settings})


def read(folder: Path) -> Any:
    """All rows of a folder, in the order of its files."""
    return pq.read_table(sorted(folder.glob("train-*.parquet")))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}
