"""Texts with labels as tuples of an anchor, a positive of its label, and negatives of other labels."""

import json
import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from lightning_jv5.data.cache import atomic_folder, cache_folder, fingerprint
from lightning_jv5.data.keyed import keys_at, permuted
from lightning_jv5.data.layouts import Layout, RoleRows
from lightning_jv5.rebuildable import Rebuildable

if TYPE_CHECKING:
    import datasets

MultiLabel = Literal["first", "rarest", "each"]

_FORMAT = 1  # raise it whenever the index would be another
_ROWS_PER_BLOCK = 100_000
_SURPLUS = 4  # times the negatives that are drawn where some may turn out to carry the anchor's label too
_log = logging.getLogger(__name__)


class LabelTuples(Rebuildable):
    """Make tuples from texts with labels: arXiv:2602.15547, section 3 (classification).

    Each anchor has one positive of its own label and ``negatives`` texts of other labels, all different, drawn at
    random from (seed, step, row). Texts are read when they are drawn; what is kept of the labels is one number for each
    row, in a memory-mapped file.

    Args:
        negatives: Texts of other labels for each anchor; fewer where there are no more.
        multi_label: What a row with a list of labels counts as: its ``first`` label, its ``rarest``, or one row of
            ``each``. Needed where labels are lists.
        unusable: What to do about labels of a single row, and sets of a single label: an ``"error"``, or
            ``"leave_out"``, counted. A row whose label is left out is still a negative for others.

    Raises:
        ValueError: If there is to be no negative, or a setting is unknown.
    """

    def __init__(
        self,
        negatives: int = 7,
        *,
        multi_label: MultiLabel | None = None,
        unusable: Literal["error", "leave_out"] = "error",
    ) -> None:
        if negatives < 1:
            raise ValueError(f"Got {negatives} negatives; need at least 1.")
        if multi_label not in (None, "first", "rarest", "each"):
            raise ValueError(f"Got multi_label {multi_label!r}; need first, rarest or each.")
        if unusable not in ("error", "leave_out"):
            raise ValueError(f"Got unusable {unusable!r}; need error or leave_out.")
        self.negatives, self.multi_label, self.unusable = negatives, multi_label, unusable

    def layout(self, rows: "datasets.Dataset", origin: str) -> "TupleLayout":
        """Return how tuples are drawn from rows with ``text`` and ``label``.

        A layout of size 0 means that the whole set is to be left out.

        Raises:
            ValueError: If a column is missing, labels are lists and nothing says what they count as, or labels or
                the set cannot be used and that is an error.
        """
        for column in ("text", "label"):
            if column not in rows.column_names:
                raise ValueError(
                    f"{origin} has the columns {', '.join(rows.column_names)}; tuples need {column!r}. Say which it is "
                    "with the source's columns."
                )
        index = label_index(rows, origin, self.multi_label)
        usable = self._usable(index, origin)
        return TupleLayout(index, usable, self.negatives, overlapping=self.multi_label == "each")

    def _usable(self, index: "LabelIndex", origin: str) -> int:
        """Return how many entries, from the first, can be anchors."""
        classes = len(index.labels)
        if classes < 2:
            wrong = f"{origin} has a single label, {index.labels[0]!r}; tuples need texts of other labels as negatives."
            if self.unusable == "error":
                raise ValueError(f"{wrong} Add labels, or leave such sets out with unusable: leave_out.")
            _log.warning("%s The set is left out.", wrong)
            return 0
        sizes = np.diff(index.bounds)
        single = int((sizes == 1).sum())
        if single:
            first = index.labels[classes - single]
            row = int(index.rows[index.bounds[classes - single]])
            wrong = (
                f"{origin}: {single} of {classes} labels have a single row, such as {first!r} (row {row}); an anchor "
                "needs a positive of its label."
            )
            if self.unusable == "error":
                raise ValueError(f"{wrong} Add rows, or leave such labels out with unusable: leave_out.")
            whole = " With them, the set." if single == classes else ""
            _log.warning("%s They are left out as anchors.%s", wrong, whole)
        return int(index.bounds[classes - single])


@dataclass(frozen=True)
class LabelIndex:
    """The rows of each label.

    Attributes:
        labels: The labels; those of a single row last, else in sorted order.
        bounds: Where the rows of each label begin in ``rows``, and where the last end; int64, shape ``(labels + 1,)``.
        rows: Row numbers, label by label; int64, memory-mapped.
    """

    labels: list[str]
    bounds: NDArray[np.int64]
    rows: NDArray[np.int64]


class TupleLayout(Layout):
    """Draws tuples from a label index.

    Args:
        index: The rows of each label.
        size: How many of the index's entries, from the first, can be anchors.
        negatives: Negatives of each anchor.
        overlapping: Whether a row may be in the index under several labels.
    """

    def __init__(self, index: LabelIndex, size: int, negatives: int, *, overlapping: bool = False) -> None:
        self.index, self.size, self.negatives, self.overlapping = index, size, negatives, overlapping
        self.grades = ("label",)
        self.columns = dict.fromkeys(("query", "document", "negatives"), ("text",))

    def roles(self, numbers: NDArray[np.int64], key: int) -> dict[str, RoleRows]:
        """Return the rows of anchors, positives and negatives, with their labels."""
        bounds, rows = self.index.bounds, self.index.rows
        label = np.searchsorted(bounds, numbers, side="right") - 1
        start, size = bounds[label], bounds[label + 1] - bounds[label]
        keys = keys_at(key, numbers)
        # any of the label's entries but the anchor's own
        positive = start + (keys % (size - 1).astype(np.uint64)).astype(np.int64)
        positive += positive >= numbers
        # any of the entries of other labels: those before the label, and those after it
        others = bounds[-1] - size
        place = np.arange(self.negatives * (_SURPLUS if self.overlapping else 1))
        there = place < others[:, None]
        drawn = permuted(np.where(there, place, 0), others[:, None], keys_at(key ^ 1, numbers)[:, None])
        drawn = drawn + np.where(drawn >= start[:, None], size[:, None], 0)
        if self.overlapping:
            there &= self._others_rows(drawn, start, start + size)
            there &= there.cumsum(axis=1) <= self.negatives
        negative = drawn[there]
        return {
            "query": RoleRows(rows[numbers], labels=label),
            "document": RoleRows(rows[positive], labels=label),
            "negatives": RoleRows(
                rows[negative],
                counts=there.sum(axis=1),
                labels=np.searchsorted(bounds, negative, side="right") - 1,
            ),
        }

    def _others_rows(self, drawn: NDArray[np.int64], start: Any, stop: Any) -> NDArray[np.bool_]:
        """Return which entries are rows that do not carry the anchor's label too, each row once."""
        rows = self.index.rows[drawn]
        fine = np.zeros(drawn.shape, dtype=bool)
        for anchor, (first, last) in enumerate(zip(start.tolist(), stop.tolist(), strict=True)):
            own = self.index.rows[first:last]  # ascending
            place = np.searchsorted(own, rows[anchor]).clip(max=len(own) - 1)
            fine[anchor, np.unique(rows[anchor], return_index=True)[1]] = True
            fine[anchor] &= own[place] != rows[anchor]
        return fine


def label_index(rows: "datasets.Dataset", origin: str, multi_label: MultiLabel | None = None) -> LabelIndex:
    """Return the rows of each label; made once and kept in the cache folder.

    Raises:
        ValueError: If labels are lists and ``multi_label`` does not say what they count as.
    """
    key = fingerprint("labels", _FORMAT, rows._fingerprint, multi_label)
    folder = cache_folder() / "labels" / key
    if not folder.is_dir():
        lists = not hasattr(rows.features["label"], "dtype")
        if lists and multi_label is None:
            raise ValueError(
                f"{origin} has lists of labels, such as {rows[0]['label']!r}; say what a row counts as with "
                "multi_label: first, rarest or each."
            )
        with atomic_folder(folder) as building:
            _build(rows.with_format("arrow"), multi_label if lists else None, building)
    facts = json.loads((folder / "labels.json").read_text())
    row_numbers = np.load(folder / "rows.npy", mmap_mode="r")
    return LabelIndex(facts["labels"], np.array(facts["bounds"], dtype=np.int64), row_numbers)


def _build(rows: Any, multi_label: MultiLabel | None, folder: Path) -> None:
    counts = frequencies = _counts(_entries(rows, multi_label and "each", {}))
    if multi_label in ("first", "rarest"):
        counts = _counts(_entries(rows, multi_label, frequencies))
    names = sorted(counts, key=lambda label: (counts[label] == 1, label))
    number = {label: place for place, label in enumerate(names)}
    bounds = np.cumsum([0, *(counts[label] for label in names)])
    filled = bounds[:-1].copy()
    ordered = np.lib.format.open_memmap(folder / "rows.npy", mode="w+", dtype=np.int64, shape=(int(bounds[-1]),))
    for row_numbers, labels in _entries(rows, multi_label, frequencies):
        codes = np.array([number[label] for label in labels], dtype=np.int64)
        order = np.argsort(codes, kind="stable")
        present, starts, sizes = np.unique(codes[order], return_index=True, return_counts=True)
        for code, start, size in zip(present.tolist(), starts.tolist(), sizes.tolist(), strict=True):
            ordered[filled[code] : filled[code] + size] = row_numbers[order[start : start + size]]
            filled[code] += size
    ordered.flush()
    (folder / "labels.json").write_text(json.dumps({"labels": names, "bounds": bounds.tolist()}))


def _counts(entries: Iterator[tuple[NDArray[np.int64], list[str]]]) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for _, labels in entries:
        counts.update(labels)
    return dict(counts)


def _entries(
    rows: Any, multi_label: MultiLabel | None, frequencies: dict[str, int]
) -> Iterator[tuple[NDArray[np.int64], list[str]]]:
    """Yield row numbers and their labels as strings, block by block."""
    for start in range(0, len(rows), _ROWS_PER_BLOCK):
        values = rows[start : start + _ROWS_PER_BLOCK]["label"].to_pylist()
        if multi_label is None:
            yield np.arange(start, start + len(values)), [str(value) for value in values]
            continue
        lists = [list(dict.fromkeys(str(value) for value in labels)) for labels in values]
        if multi_label == "first":
            lists = [labels[:1] for labels in lists]
        elif multi_label == "rarest":
            lists = [[min(labels, key=lambda label: (frequencies[label], label))] for labels in lists]
        numbers = np.repeat(np.arange(start, start + len(lists)), [len(labels) for labels in lists])
        yield numbers, [label for labels in lists for label in labels]
