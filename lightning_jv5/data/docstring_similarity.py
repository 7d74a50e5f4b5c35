"""Pairs of docstrings, scored by how near they are in the module tree: graded similarity without annotators."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from lightning_jv5.data.cache import fingerprint
from lightning_jv5.data.docstring_tree import Split, docstring_objects, generator, place_of
from lightning_jv5.data.docstrings import Pair
from lightning_jv5.data.source import Source

if TYPE_CHECKING:
    import datasets

GRADES = {"object": 1.0, "class": 0.75, "module": 0.5, "package": 0.25, "unrelated": 0.0}


class DocstringSimilarity(Source):
    """Scored pairs of short texts: of one object 1, of one class 0.75, module 0.5, package 0.25, of two packages 0.

    A pair of one object is its summary and the text that follows; the others are two summaries. Every grade has as many
    rows as the others. Rows have ``text1``, ``text2``, ``score`` and ``relation``. Held-out objects are in no training
    pair.

    Args:
        split: ``"train"``, or ``"heldout"`` to evaluate on.
        rows: How many pairs, rounded down to a multiple of five.
        packages: As for :class:`~lightning_jv5.data.Docstrings`.
        seed: Seed of the pairs.

    Raises:
        ValueError: If there are fewer than five rows; when loading, if no two objects have a relation.
    """

    def __init__(
        self, split: Split = "train", *, rows: int = 5000, packages: list[str] | None = None, seed: int = 0
    ) -> None:
        if rows < len(GRADES):
            raise ValueError(f"Got rows={rows}; need at least {len(GRADES)}, one of each grade.")
        self.split, self.rows, self.packages, self.seed = split, rows, packages, seed

    def load(self) -> "datasets.Dataset":
        """Return the pairs."""
        from datasets import Dataset

        objects, key = docstring_objects(self.split, self.packages)
        random = generator("docstring-similarity", self.split, self.seed)
        tree = _Tree.of(objects)
        pairs = [
            (*texts, grade, relation)
            for relation, grade in GRADES.items()
            for texts in _pairs(objects, tree, relation, self.rows // len(GRADES), random)
        ]
        columns = zip(*(pairs[place] for place in random.permutation(len(pairs))), strict=True)
        dataset = Dataset.from_dict(dict(zip(("text1", "text2", "score", "relation"), columns, strict=True)))
        dataset._fingerprint = fingerprint("docstring-similarity", key, self.rows, self.seed)
        return dataset


class _Tree(NamedTuple):
    """Numbers of objects by place, at every level, and the places of each object from the narrowest to the widest."""

    members: Mapping[str, Mapping[str, Sequence[int]]]
    places: Sequence[Mapping[str, str]]

    @classmethod
    def of(cls, objects: Sequence[Pair]) -> "_Tree":
        members: dict[str, dict[str, list[int]]] = {
            level: defaultdict(list) for level in ("class", "module", "package")
        }
        places = []
        for number, pair in enumerate(objects):
            place = place_of(pair.module, pair.name)
            places.append({"class": place.outer, "module": place.module, "package": place.package})
            for level, name in places[-1].items():
                members[level][name].append(number)
        return cls(members, places)

    def partners(self, number: int, relation: str) -> list[int]:
        """Return the objects that are in one place with another at a level, and in different ones at the next below."""
        below = {"class": None, "module": "class", "package": "module"}[relation]
        near = self.members[relation][self.places[number][relation]]
        nearer = {number} if below is None else set(self.members[below][self.places[number][below]])
        return [other for other in near if other not in nearer]


def _pairs(
    objects: Sequence[Pair], tree: _Tree, relation: str, count: int, random: np.random.Generator
) -> list[tuple[str, str]]:
    pairs: list[tuple[str, str]] = []
    barren = 0
    while len(pairs) < count:
        for number in random.permutation(len(objects)).tolist():
            one = objects[number]
            if relation == "object":
                pairs.append((one.query, one.document))
            elif relation == "unrelated":
                other = int(random.integers(len(objects)))
                if tree.places[other]["package"] != tree.places[number]["package"]:
                    pairs.append((one.query, objects[other].query))
            elif partners := tree.partners(number, relation):
                pairs.append((one.query, objects[partners[int(random.integers(len(partners)))]].query))
            if len(pairs) == count:
                break
        barren = barren + 1 if not pairs else 0
        if barren > 2:
            raise ValueError(
                f"No two of the {len(objects)} objects are pairs of the relation {relation!r}; the docstrings of these "
                "packages are too few. Add packages."
            )
    return pairs
