"""One query in two views of a corpus: what the page shows, as plain data."""

import threading
import time
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lightning_jv5.data.source import did_you_mean
from lightning_jv5.encoder import Encoder
from lightning_jv5.metrics.views import PRECISIONS, View
from lightning_jv5.rebuildable import Plain, constructor_arguments
from lightning_jv5.search.corpus import Corpus
from lightning_jv5.search.view_index import Found, ViewIndex

NO_TASK = "none"
MOST_HITS = 100
_SMALLEST_DIM = 16
_KEPT_INDEXES = 6
_TIMED = 3  # searches, of which the quickest is told: the first one of an index mostly waits for memory
_MOST_CHARACTERS = 4000  # of a text that is shown


class Searcher:
    """Search a corpus whole and in another view, and say what became of each hit.

    Args:
        encoder: Encodes the queries.
        corpus: Texts and vectors.
    """

    def __init__(self, encoder: Encoder, corpus: Corpus) -> None:
        self.encoder, self.corpus = encoder, corpus
        self.searches = 0
        self._indexes: OrderedDict[tuple[str | None, View], ViewIndex] = OrderedDict()
        self._lock = threading.Lock()  # an encoder switches adapters, and times are those of one search

    def about(self) -> dict[str, Plain]:
        """Say what can be asked: model, corpus, dims, precisions and tasks."""
        whole = self.corpus.dim
        halves = [2**power for power in range(14, 0, -1) if _SMALLEST_DIM <= 2**power < whole]
        return {
            "model": constructor_arguments(self.encoder.embedder).get("path"),
            "corpus": self.corpus.origin,
            "documents": len(self.corpus.texts),
            "stored_as": self.corpus.stored_as,
            "dims": [whole, *halves],
            "precisions": list(PRECISIONS),
            "tasks": [task or NO_TASK for task in self.corpus.vectors],
            "most_hits": MOST_HITS,
        }

    def answer(self, asked: Mapping[str, str]) -> dict[str, Any]:
        """Answer a request whose parameters are strings: ``q``, ``dim``, ``precision``, ``task``, ``depth``.

        Raises:
            ValueError: If one is unknown or wrong.
        """
        known = ("q", "dim", "precision", "task", "depth")
        for name in asked:
            if name not in known:
                raise ValueError(f"Got {name!r}; need {', '.join(known)}.{did_you_mean(name, known)}")
        tasks = list(self.corpus.vectors)
        names = [task or NO_TASK for task in tasks]
        task = asked.get("task") or names[0]
        if task not in names:
            raise ValueError(
                f"Got task {task!r}; the corpus was encoded for {', '.join(names)}. Start search with --tasks=[{task}] "
                "to have it, if the model does."
            )
        return self.search(
            asked.get("q", ""),
            dim=_whole_number(asked, "dim", self.corpus.dim, self.corpus.dim),
            precision=asked.get("precision") or "binary",
            task=tasks[names.index(task)],
            depth=_whole_number(asked, "depth", 10, MOST_HITS),
        )

    def search(self, query: str, *, dim: int, precision: Any, task: str | None, depth: int = 10) -> dict[str, Any]:
        """Search with whole floats and in a view.

        Args:
            query: The text that searches.
            dim: Leading dims of the view.
            precision: One of :data:`~lightning_jv5.metrics.views.PRECISIONS`.
            task: For which of the corpus's tasks.
            depth: How many hits.

        Returns:
            ``reference`` and ``view``, each with its hits, ``search_ms`` and ``bytes_per_vector``; every hit with its
            ``rank``, and with its ``other_rank`` in the other of the two. ``kept`` counts those that are in both.

        Raises:
            ValueError: If the query is empty, or there is no such view.
        """
        if not query.strip():
            raise ValueError("Got an empty query; need some words to search for.")
        view = View(dim=dim, precision=precision)
        with self._lock:
            start = time.perf_counter()
            with self.encoder.embedder.using(task):  # an encoder takes task=None for what it uses anyway
                vector = torch.from_numpy(self.encoder.encode_query([query], show_progress_bar=False))
            encoded = time.perf_counter() - start
            sides = [self._index(task, View(dim=self.corpus.dim)), self._index(task, view)]
            found = [_quickest(index, vector, depth) for index in sides]
            others = [sides[1 - at].ranks(vector, found[at].rows, found[1 - at]) for at in (0, 1)]
            self.searches += 1
        reference, compared = (self._side(*facts) for facts in zip(sides, found, others, strict=True))
        return {
            "query": query,
            "task": task or NO_TASK,
            "documents": len(self.corpus.texts),
            "depth": len(found[0].rows),
            "kept": len(set(found[0].rows) & set(found[1].rows)),
            "encode_ms": 1000 * encoded,
            "reference": reference,
            "view": compared,
        }

    def _index(self, task: str | None, view: View) -> ViewIndex:
        if (task, view) not in self._indexes:
            self._indexes[task, view] = ViewIndex(view, self.corpus.vectors[task])
        self._indexes.move_to_end((task, view))
        while len(self._indexes) > _KEPT_INDEXES:
            self._indexes.popitem(last=False)
        return self._indexes[task, view]

    def _side(self, index: ViewIndex, found: Found, other_ranks: list[int]) -> dict[str, Any]:
        return {
            "dim": index.dim,
            "precision": index.view.precision,
            "bytes_per_vector": index.bytes_per_vector,
            "search_ms": 1000 * found.seconds,
            "hits": [
                {
                    "rank": rank,
                    "other_rank": other,
                    "row": row,
                    "score": score,
                    "text": self.corpus.texts[row][:_MOST_CHARACTERS],
                }
                for rank, (row, score, other) in enumerate(zip(found.rows, found.scores, other_ranks, strict=True), 1)
            ],
        }


def _quickest(index: ViewIndex, query: Tensor, depth: int) -> Found:
    return min((index.search(query, depth) for _ in range(_TIMED)), key=lambda found: found.seconds)


def _whole_number(asked: Mapping[str, str], name: str, default: int, most: int) -> int:
    given = asked.get(name) or str(default)
    if not given.isdecimal() or not 1 <= int(given) <= most:
        raise ValueError(f"Got {name} {given[:40]!r}; need a whole number from 1 to {most}.")
    return int(given)
