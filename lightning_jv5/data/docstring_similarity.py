"""Graded similarity that is on every machine: how near two docstrings are in the module tree."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lightning_jv5.data.arrow_cache import cached_rows
from lightning_jv5.data.cache import fingerprint
from lightning_jv5.data.docstring_labels import first_words
from lightning_jv5.data.docstrings import (
    DEFAULT_PACKAGES,
    NearCopies,
    Pair,
    docstring_pairs,
    in_order_of_holding_out,
    pairs_in,
)
from lightning_jv5.data.keyed import key, keys_at, permuted
from lightning_jv5.data.source import Source, first_rows

if TYPE_CHECKING:
    import datasets

_FORMAT = 1  # raise it whenever the rows change

# From what two texts have in common to their score; rows take them in turn
GRADES = {"unrelated": 0.0, "same package": 0.25, "same module": 0.5, "same class": 0.75, "same object": 1.0}


class ScoredPair(NamedTuple):
    """Two short texts and how near they are in the module tree.

    Attributes:
        text1: The summary sentence of one docstring.
        text2: The beginning of the prose of the same docstring or another.
        score: From 0 to 1, one of :data:`GRADES`.
        place1: Module and qualified name of the object that ``text1`` describes.
        place2: The same for ``text2``.
    """

    text1: str
    text2: str
    score: float
    place1: str
    place2: str


class DocstringSimilarity(Source):
    """Pairs of short texts from docstrings, scored by how near their objects are in the module tree.

    The score is 1 for the same object, 0.75 for the same class, 0.5 for the same module, 0.25 for the same package and
    0 for others: as many rows of each, in turn. The first text is always a summary sentence and the second the
    beginning of the prose that follows one, so the form of the texts says nothing about the score. It is the nearness
    of places, of which meaning is a part: Spearman's correlation of the best model with it stays well below 1.

    Whole modules are held out, and training texts that nearly repeat a held-out one are removed. Modules are held out
    in the order of :class:`~lightning_jv5.data.Docstrings`: its training rows, with the same ``heldout``, are unscored
    pairs for the same task, without any of a module that is held out here. Rows have ``text1``, ``text2``, ``score``,
    ``place1`` and ``place2``; what is built is cached, and depends on the versions of the installed packages.

    Args:
        split: ``"train"``, or ``"heldout"`` for pairs to evaluate on.
        rows: How many rows, from the first; all if left out. No text is first in two rows of the same score.
        packages: As for :class:`~lightning_jv5.data.Docstrings`.
        seed: Picks the training pairs; held-out rows are the same for all seeds.
        heldout: How many docstrings are held out, at least: modules are added until it is reached.
        words: Most words of a text; 20 are about 28 tokens.

    Raises:
        ValueError: If an argument is wrong.
    """

    def __init__(
        self,
        split: Literal["train", "heldout"] = "train",
        *,
        rows: int | None = None,
        packages: list[str] | None = None,
        seed: int = 0,
        heldout: int = 1500,
        words: int = 20,
    ) -> None:
        if split not in {"train", "heldout"}:
            raise ValueError(f"Got split={split!r}; need 'train' or 'heldout'.")
        if min(heldout, words) < 1:
            raise ValueError(f"Got heldout={heldout}, words={words}; need at least 1 of each.")
        self.split, self.rows, self.seed, self.heldout, self.words = split, rows, seed, heldout, words
        self.packages = list(DEFAULT_PACKAGES) if packages is None else packages

    def load(self) -> "datasets.Dataset":
        """Return the rows of the split, building and caching them if they are not there yet.

        Raises:
            ValueError: If a package is not installed, some score has no pair, or there are fewer rows than asked for.
        """
        import pyarrow as pa

        pairs = docstring_pairs(self.packages)
        seed = self.seed if self.split == "train" else 0
        name = fingerprint(
            "docstring similarity", _FORMAT, pairs._fingerprint, self.split, seed, self.heldout, self.words
        )
        kinds = {"score": pa.float32()}
        schema = pa.schema({field: kinds.get(field, pa.string()) for field in ScoredPair._fields})

        def tables() -> list[pa.Table]:
            train, heldout = split_modules(pairs_in(pairs), self.heldout)
            rows = scored_pairs(heldout if self.split == "heldout" else train, seed, self.words)
            if not rows:
                raise ValueError(
                    f"Got heldout={self.heldout}, but the docstrings of {', '.join(self.packages)} give no pairs of "
                    f"every score for split={self.split!r}. Change heldout, or add packages: it takes two, with "
                    "modules of the same package and methods of the same class."
                )
            return [pa.table([list(column) for column in zip(*rows, strict=True)], schema)]

        return first_rows(cached_rows("docstring_similarity", name, schema, tables), self.rows, "docstring similarity")


def split_modules(pairs: Iterable[Pair], least: int) -> tuple[list[Pair], list[Pair]]:
    """Hold out whole modules, and take what nearly repeats one of their pairs out of the rest.

    Args:
        pairs: The pairs of all modules, in any order.
        least: How many are held out, at least: modules are added until it is reached.

    Returns:
        The training pairs and the held-out pairs.
    """
    modules: dict[str, list[Pair]] = defaultdict(list)
    for pair in pairs:
        modules[pair.module].append(pair)
    copies = NearCopies()
    heldout: list[Pair] = []
    for module in in_order_of_holding_out(modules):
        if len(heldout) >= least:
            break
        for pair in modules.pop(module):
            copies.add(pair)
            heldout.append(pair)
    return [pair for rest in modules.values() for pair in rest if not copies.holds(pair)], heldout


def scored_pairs(pairs: Iterable[Pair], seed: int, words: int) -> list[ScoredPair]:
    """Draw pairs of texts of every score, in turn, until a score has no first text left.

    Args:
        pairs: Docstrings, taken apart.
        seed: Which pairs are drawn; each is a function of the seed and its number.
        words: Most words of a text.

    Returns:
        The pairs; none if there is a score without any.

    >>> pairs = [Pair(f"Title {n}.", f"Body {n}.", module, name) for n, (module, name) in enumerate(
    ...     [("a.b", "C.x"), ("a.b", "C.y"), ("a.b", "f"), ("a.d", "g"), ("e.f", "h")])]
    >>> [(pair.place1, pair.place2) for pair in scored_pairs(pairs, seed=0, words=9)[3:5]]
    [('a.b.C.x', 'a.b.C.y'), ('a.b.C.x', 'a.b.C.x')]
    """
    tree = sorted(pairs, key=lambda pair: (*_places(pair), pair.name, pair.query))
    # What has a place in common is a range of the sorted pairs: from all of them to a pair alone
    alone = np.arange(len(tree))
    ranges = [(np.zeros_like(alone), np.full_like(alone, len(tree)))]
    ranges += [_ranges([_places(pair)[: depth + 1] for pair in tree]) for depth in range(3)]
    ranges += [(alone, alone + 1)]
    drawn: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []
    for grade, (outer, inner) in enumerate(zip(ranges, [*ranges[1:], None], strict=True)):
        start, stop = outer
        taken_from, taken_to = (start, start) if inner is None else inner  # nearer than this grade: another one's
        size = (stop - start) - (taken_to - taken_from)
        can = np.flatnonzero(size)
        first = can[permuted(np.arange(len(can)), max(1, len(can)), key("first text", seed, grade))]
        chosen = (keys_at(key("second text", seed, grade), first) % size[first].astype(np.uint64)).astype(np.int64)
        second = start[first] + chosen
        second += np.where(second >= taken_from[first], (taken_to - taken_from)[first], 0)
        drawn.append((first, second))
    turns = min(len(first) for first, _ in drawn)
    return [
        _scored(tree[drawn[grade][0][turn]], tree[drawn[grade][1][turn]], score, words)
        for turn in range(turns)
        for grade, score in enumerate(GRADES.values())
    ]


def _places(pair: Pair) -> tuple[str, str, str]:
    """Return package, module and class; a function is like a class of its own."""
    return pair.module.split(".")[0], pair.module, pair.name.split(".")[0]


def _ranges(places: Sequence[tuple[str, ...]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return for each of the sorted places where those equal to it begin and end."""
    new = np.array([number == 0 or places[number - 1] != place for number, place in enumerate(places)], dtype=bool)
    starts = np.flatnonzero(new)
    group = np.cumsum(new) - 1
    return starts[group], np.append(starts[1:], len(places))[group]


def _scored(first: Pair, second: Pair, score: float, words: int) -> ScoredPair:
    places = (f"{pair.module}.{pair.name}".rstrip(".") for pair in (first, second))
    return ScoredPair(first_words(first.query, words), first_words(second.document, words), score, *places)
