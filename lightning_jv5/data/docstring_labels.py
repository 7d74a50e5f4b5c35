"""A classification task that is on every machine: which package a docstring is from."""

import itertools
import re
from collections import defaultdict
from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal, NamedTuple

from lightning_jv5.data.arrow_cache import cached_rows
from lightning_jv5.data.cache import fingerprint
from lightning_jv5.data.docstrings import DEFAULT_PACKAGES, NearCopies, Pair, docstring_pairs, pairs_in
from lightning_jv5.data.keyed import key
from lightning_jv5.data.source import Source, first_rows

if TYPE_CHECKING:
    import datasets

_FORMAT = 1  # raise it whenever the rows change


class LabelledText(NamedTuple):
    """A short text of a docstring and its place in the module tree.

    Attributes:
        text: At most so many words.
        label: The first components of the module's dotted path.
        module: Dotted path of the module it was found in.
        name: Qualified name inside the module; empty for the module's own docstring.
    """

    text: str
    label: str
    module: str
    name: str


class DocstringLabels(Source):
    """Short texts from docstrings, labelled with their place in the module tree: by default the package.

    Packages are about different things (graphs, plots, statistics, the web), so the label of a new text can be told
    from what it says. A text that names a part of its own label is left out. Objects are held out, as many of each
    label, and training texts that nearly repeat a held-out one are removed. Rows have ``text``, ``label``, ``module``
    and ``name``; what is built is cached, and depends on the versions of the installed packages.

    The held-out texts are others than those of :class:`~lightning_jv5.data.Docstrings`: a model distilled on its
    training rows has read most of them, though never with a label.

    Args:
        split: ``"train"``, or ``"heldout"`` for texts to evaluate on.
        depth: How many components of the dotted path make the label: 1 for ``scipy``, 2 for ``scipy.stats``. What is
            not as deep has no label.
        text: ``"query"`` for the summary sentence, ``"document"`` for the prose that follows, ``"both"`` for the one
            and the beginning of the other.
        words: Most words of a text; 20 are about 28 tokens.
        rows: How many rows, from the first; all if left out. They are in a pseudo-random order.
        packages: As for :class:`~lightning_jv5.data.Docstrings`.
        seed: Picks the order of the training rows, and which of a large label's texts are used. Held-out rows are the
            same for all seeds.
        heldout_per_label: Texts held out of each label.
        min_per_label: Labels with fewer training texts are left out.
        max_per_label: Most training texts of a label, so that none outweighs the others.

    Raises:
        ValueError: If an argument is wrong.
    """

    def __init__(
        self,
        split: Literal["train", "heldout"] = "train",
        *,
        depth: int = 1,
        text: Literal["query", "document", "both"] = "both",
        words: int = 20,
        rows: int | None = None,
        packages: list[str] | None = None,
        seed: int = 0,
        heldout_per_label: int = 40,
        min_per_label: int = 100,
        max_per_label: int = 400,
    ) -> None:
        if split not in {"train", "heldout"}:
            raise ValueError(f"Got split={split!r}; need 'train' or 'heldout'.")
        if text not in {"query", "document", "both"}:
            raise ValueError(f"Got text={text!r}; need 'query', 'document' or 'both'.")
        if min(depth, words, heldout_per_label) < 1:
            raise ValueError(
                f"Got depth={depth}, words={words}, heldout_per_label={heldout_per_label}; need at least 1 of each."
            )
        if not 2 <= min_per_label <= max_per_label:
            raise ValueError(
                f"Got min_per_label={min_per_label}, max_per_label={max_per_label}; need 2 or more (a text and another "
                "of its label), and no more than max_per_label."
            )
        self.split, self.depth, self.text, self.words, self.rows = split, depth, text, words, rows
        self.packages = list(DEFAULT_PACKAGES) if packages is None else packages
        self.seed = seed
        self.heldout_per_label, self.min_per_label, self.max_per_label = heldout_per_label, min_per_label, max_per_label

    def load(self) -> "datasets.Dataset":
        """Return the rows of the split, building and caching them if they are not there yet.

        Raises:
            ValueError: If a package is not installed, fewer than two labels have enough texts, or there are fewer rows
                than asked for.
        """
        import pyarrow as pa

        pairs = docstring_pairs(self.packages)
        name = fingerprint(
            *("docstring labels", _FORMAT, pairs._fingerprint, self.split, self.depth, self.text, self.words),
            *(self.seed, self.heldout_per_label, self.min_per_label, self.max_per_label),
        )
        schema = pa.schema({field: pa.string() for field in LabelledText._fields})

        def tables() -> list[pa.Table]:
            texts = self._texts(pairs_in(pairs))
            return [pa.table(list(zip(*texts, strict=True)), schema)]

        return first_rows(cached_rows("docstring_labels", name, schema, tables), self.rows, "docstring labels")

    def _texts(self, pairs: Iterable[Pair]) -> list[LabelledText]:
        train, heldout = split_labels(
            labelled_texts(pairs, self.depth, self.text, self.words), self.heldout_per_label, self.min_per_label
        )
        if len(train) < 2:
            raise ValueError(
                f"Got heldout_per_label={self.heldout_per_label}, min_per_label={self.min_per_label}, but at depth="
                f"{self.depth} the docstrings of {', '.join(self.packages)} have {len(train)} labels with so many "
                "texts; need two or more. Ask for fewer texts, or add packages."
            )
        if self.split == "heldout":
            return _shuffled(itertools.chain.from_iterable(heldout.values()), "held-out order")
        order = f"order {self.seed}"
        return _shuffled(
            (row for texts in train.values() for row in _shuffled(texts, order)[: self.max_per_label]), order
        )


def labelled_texts(
    pairs: Iterable[Pair], depth: int, text: Literal["query", "document", "both"], words: int
) -> list[LabelledText]:
    """Return the short texts of pairs under their labels, without those that name a part of their own label.

    Args:
        pairs: Docstrings, taken apart.
        depth: How many components of the dotted path make the label.
        text: Which part of the docstring is used.
        words: Most words of a text.

    >>> pair = Pair("Draw a circle.", "Its centre is where the pen is.", "turtle.shapes", "circle")
    >>> labelled_texts([pair], depth=1, text="both", words=6)
    [LabelledText(text='Draw a circle. Its centre is', label='turtle', module='turtle.shapes', name='circle')]
    >>> labelled_texts([pair._replace(query="Move the turtle.")], depth=1, text="query", words=6)
    []
    """
    found: dict[str, LabelledText] = {}
    for pair in pairs:
        place = pair.module.split(".")[:depth]
        named = {part.strip("_").lower() for part in place}
        whole = f"{pair.query} {pair.document}" if text == "both" else getattr(pair, text)
        short = first_words(whole, words)
        if len(place) == depth and not named & set(re.findall(r"\w+", short.lower())):
            found.setdefault(short, LabelledText(short, ".".join(place), pair.module, pair.name))
    return list(found.values())


def split_labels(
    texts: Iterable[LabelledText], heldout: int, least: int
) -> tuple[dict[str, list[LabelledText]], dict[str, list[LabelledText]]]:
    """Hold out as many texts of each label, and take what nearly repeats one of them out of the rest.

    Args:
        texts: Texts of all labels, in any order.
        heldout: How many texts of each label are held out.
        least: Labels with fewer texts to train on are left out.

    Returns:
        The texts to train on and the held-out texts of each label; the labels are the same in both, in sorted order.
    """
    by_label: dict[str, list[LabelledText]] = defaultdict(list)
    for row in texts:
        by_label[row.label].append(row)
    copies = NearCopies()
    chosen: dict[str, list[LabelledText]] = {}
    rest: list[LabelledText] = []
    for label, rows in sorted(by_label.items()):
        if len(rows) < heldout + least:
            continue
        chosen[label] = []
        for row in _shuffled(rows, "held-out text"):
            if len(chosen[label]) < heldout and not copies.holds(_as_pair(row)):
                copies.add(_as_pair(row))
                chosen[label].append(row)
            else:
                rest.append(row)
    train: dict[str, list[LabelledText]] = defaultdict(list)
    for row in rest:
        if not copies.holds(_as_pair(row)):
            train[row.label].append(row)
    kept = [label for label, rows in chosen.items() if len(rows) == heldout and len(train[label]) >= least]
    return {label: train[label] for label in kept}, {label: chosen[label] for label in kept}


def first_words(text: str, most: int) -> str:
    """Return the beginning of a text, of so many words at most.

    >>> first_words("Return the larger value.", 3)
    'Return the larger'
    """
    return " ".join(text.split()[:most])


def _as_pair(row: LabelledText) -> Pair:
    return Pair(row.text, row.text, row.module, row.name)


def _shuffled(texts: Iterable[LabelledText], order: str) -> list[LabelledText]:
    return sorted(texts, key=lambda row: key(order, row.text))
