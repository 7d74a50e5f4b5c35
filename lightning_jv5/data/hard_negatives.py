"""Which candidates become the hard negatives of a row: the rules, on arrays of numbers alone."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lightning_jv5.data.keyed import key, keys_at

Sampling = Literal["top", "random"]
MarginFrom = Literal["lowest", "own"]


@dataclass(frozen=True)
class NegativeRules:
    """Which candidates may be negatives, and how many of them are taken.

    A candidate that is too similar to the query is likely an answer that nobody marked (a false negative). It is left
    out if its similarity is above ``positive - absolute_margin``, or above ``positive - relative_margin * |positive|``,
    where ``positive`` is the similarity of the query and its own document: TopK-MarginPos and TopK-PercPos of
    https://arxiv.org/abs/2407.15831. A relative margin of 0.05 keeps negatives at 95% of the positive or less.

    Attributes:
        negatives: Most negatives of a row.
        depth: Candidates that are looked at, from the most similar on.
        skip_top: Candidates left out from the top of these.
        absolute_margin: By how much a negative must be less similar; None for any.
        relative_margin: The same as a share of the positive's similarity; None for any.
        margin_from: Whose similarity margins are taken from: ``"lowest"`` of all documents that answer the query, which
            trusts no candidate above any of them, or the row's ``"own"``.
        sampling: ``"top"`` takes the most similar of those left, ``"random"`` draws from them anew for each row.
        seed: Of the draws.

    Raises:
        ValueError: If a number is out of range.
    """

    negatives: int = 7
    depth: int = 100
    skip_top: int = 0
    absolute_margin: float | None = None
    relative_margin: float | None = 0.05
    margin_from: MarginFrom = "lowest"
    sampling: Sampling = "top"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.negatives < 1:
            raise ValueError(f"Got negatives {self.negatives}; need at least 1.")
        if self.skip_top < 0:
            raise ValueError(f"Got skip_top {self.skip_top}; need at least 0.")
        if self.depth < self.skip_top + self.negatives:
            raise ValueError(
                f"Got depth {self.depth}, of which skip_top leaves out {self.skip_top}; need at least "
                f"{self.skip_top + self.negatives} for {self.negatives} negatives. Raise depth."
            )
        for name, margin, most in (
            ("absolute_margin", self.absolute_margin, 2),
            ("relative_margin", self.relative_margin, 1),
        ):
            if margin is not None and not 0 <= margin <= most:
                raise ValueError(f"Got {name} {margin}; need between 0 and {most}, or none.")
        for name, value, known in (
            ("sampling", self.sampling, ("top", "random")),
            ("margin_from", self.margin_from, ("lowest", "own")),
        ):
            if value not in known:
                raise ValueError(f"Got {name} {value!r}; need {' or '.join(known)}.")

    def limit(self, positive: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the largest similarity that a negative may have, for each similarity of a positive.

        >>> NegativeRules(relative_margin=0.25).limit(np.float32([0.8, -0.8]))
        array([ 0.6, -1. ], dtype=float32)
        """
        limit = np.full_like(positive, np.inf)
        if self.absolute_margin is not None:
            limit = np.minimum(limit, positive - np.float32(self.absolute_margin))
        if self.relative_margin is not None:
            limit = np.minimum(limit, positive - np.float32(self.relative_margin) * np.abs(positive))
        return limit


class Chosen(NamedTuple):
    """What :func:`choose_negatives` chose for some rows.

    Attributes:
        places: Columns of the candidates in their order, shape ``(rows, negatives)``; ``-1`` where there are fewer.
        over_limit: Candidates left out for being too similar, by row.
    """

    places: NDArray[np.int64]
    over_limit: NDArray[np.int64]


def choose_negatives(
    similarities: NDArray[np.float32], positive: NDArray[np.float32], rows: NDArray[np.int64], rules: NegativeRules
) -> Chosen:
    """Choose the negatives of each row among its candidates.

    Args:
        similarities: What the margins are judged by, in the order in which candidates were found, shape
            ``(rows, depth)``; ``-inf`` where there is no candidate.
        positive: What margins are taken from, shape ``(rows,)``.
        rows: Number of each row in the data set; draws depend on it and the seed alone.
        rules: What may be chosen.

    >>> similarities = np.float32([[0.9, 0.7, 0.5, 0.3]])
    >>> rules = NegativeRules(negatives=2, depth=4, relative_margin=0.1)
    >>> choose_negatives(similarities, np.float32([0.8]), np.array([0]), rules)
    Chosen(places=array([[1, 2]]), over_limit=array([1]))
    """
    depth = similarities.shape[1]
    allowed = np.isfinite(similarities)
    allowed[:, : rules.skip_top] = False
    over = allowed & (similarities > rules.limit(positive)[:, None])
    allowed &= ~over
    rank = np.broadcast_to(np.arange(depth, dtype=np.uint64), similarities.shape)
    order = rank if rules.sampling == "top" else _draws(rules.seed, rows, depth)
    last = np.uint64(2**64 - 1)
    drawn = np.argsort(np.where(allowed, order, last), axis=1, kind="stable")[:, : rules.negatives]
    # By rank again; what is not allowed goes to the end
    places = np.sort(np.where(np.take_along_axis(allowed, drawn, axis=1), drawn, depth), axis=1)
    return Chosen(np.where(places < depth, places, -1), over.sum(axis=1))


def _draws(seed: int, rows: NDArray[np.int64], depth: int) -> NDArray[np.uint64]:
    """Return random numbers that depend on (seed, row, rank) alone; the largest is kept for what may not be drawn."""
    draws = keys_at(key("hard negatives", seed), rows[:, None] * depth + np.arange(depth))
    return np.minimum(draws, np.uint64(2**64 - 2), dtype=np.uint64)
