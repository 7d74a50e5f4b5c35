"""Pairs, labelled texts and lists of candidates, an encoder for them, and a task of each kind."""

from collections.abc import Sequence
from typing import Any

import datasets
import torch
from torch import Tensor

from lightning_jv5.data.source import Source
from lightning_jv5.tasks import (
    BitextMiningTask,
    ClassificationTask,
    ClusteringTask,
    EvaluationTask,
    PairClassificationTask,
    RerankingTask,
    STSTask,
)
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
    return Rows({"text1": texts[:rows], "text2": texts[5:], "score": scores, "lang": languages(rows)})


def languages(rows: int) -> list[str | None]:
    return [("de", "en", None)[row % 3] for row in range(rows)]


def judged_pairs(rows: int = 40) -> Rows:
    texts = tiny_texts(rows + 5, seed=15)
    labels = [topic(left) == topic(right) for left, right in zip(texts, texts[5:], strict=False)]
    return Rows({"text1": texts[:rows], "text2": texts[5:], "label": labels, "lang": languages(rows)})


def translations(rows: int = 40) -> Rows:
    """Texts and the same without their last words, which several may share."""
    texts = tiny_texts(rows, seed=16)
    shorter = [" ".join(text.split()[: 3 if row % 3 else 1]) for row, text in enumerate(texts)]
    return Rows({"text1": texts, "text2": shorter, "lang": languages(rows)})


def candidate_lists(rows: int = 12) -> Rows:
    """Queries with the texts of their topic as right ones; two of them with texts of one kind alone."""
    texts, queries = tiny_texts(60, seed=17), tiny_texts(rows, seed=18)
    lists: dict[str, list[Any]] = {"query": queries, "positive": [], "negative": [], "lang": languages(rows)}
    for row, query in enumerate(queries):
        mine = texts[row * 3 : row * 3 + 9 + row % 4]
        lists["positive"].append([text for text in mine if topic(text) == topic(query)])
        lists["negative"].append([text for text in mine if topic(text) != topic(query)] if row else [])
    lists["positive"][-1] = None
    return Rows(lists)


def labelled(rows: int, seed: int) -> Rows:
    texts = tiny_texts(rows, seed=seed)
    return Rows({"text": texts, "label": [topic(text) for text in texts]})


def one_of_each() -> dict[str, EvaluationTask]:
    return {
        "sts": STSTask(scored_pairs(), group="lang"),
        "duplicates": PairClassificationTask(judged_pairs(), group="lang"),
        "translations": BitextMiningTask(translations(), group="lang"),
        "candidates": RerankingTask(candidate_lists(), group="lang"),
        "topics": ClusteringTask(labelled(60, seed=12), repeats=2),
        "intents": ClassificationTask(labelled(80, seed=13), labelled(40, seed=14), experiments=3),
    }
