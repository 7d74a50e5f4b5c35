"""Scored pairs and labelled texts, an encoder for them, and a task of each kind."""

from collections.abc import Sequence
from typing import Any

import datasets
import torch
from torch import Tensor

from lightning_jv5.data.source import Source
from lightning_jv5.tasks import ClassificationTask, ClusteringTask, EvaluationTask, STSTask
from tests.tiny_data import tiny_texts
from tests.tiny_models import WORDS

DIM = 12


class Rows(Source):
    """Columns written down in the test; counts how often they are read."""

    def __init__(self, columns: dict[str, list[Any]]) -> None:
        self.columns, self.loads = columns, 0

    def load(self) -> datasets.Dataset:
        self.loads += 1
        return datasets.Dataset.from_dict(self.columns)


def encode_words(texts: Sequence[str], role: str) -> Tensor:
    """Sum the words' random vectors, weighted by place, in float64: batches do not matter."""
    words = WORDS.split()
    vectors = torch.randn(len(words), DIM, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    vectors[: len(words) // 2] += 0.5
    found = [sum(vectors[words.index(word)] / place for place, word in enumerate(text.split(), 1)) for text in texts]
    return torch.stack(found).float() if found else torch.zeros(0, DIM)


def topic(text: str) -> str:
    """Whether the first word is one of the first half of all, of the third quarter, or of the last."""
    words = WORDS.split()
    return ["early", "early", "middle", "late"][words.index(text.split(maxsplit=1)[0]) * 4 // len(words)]


def scored_pairs(rows: int = 30) -> Rows:
    texts = tiny_texts(rows + 5, seed=11)
    scores = torch.randint(0, 11, (rows,), generator=torch.Generator().manual_seed(1)).div(2).tolist()
    return Rows({"text1": texts[:rows], "text2": texts[5:], "score": scores})


def labelled(rows: int, seed: int) -> Rows:
    texts = tiny_texts(rows, seed=seed)
    return Rows({"text": texts, "label": [topic(text) for text in texts]})


def one_of_each() -> dict[str, EvaluationTask]:
    return {
        "sts": STSTask(scored_pairs()),
        "topics": ClusteringTask(labelled(60, seed=12), repeats=2),
        "intents": ClassificationTask(labelled(80, seed=13), labelled(40, seed=14), experiments=3),
    }
