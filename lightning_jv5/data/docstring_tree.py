"""Docstrings and their places in the tree of packages, modules and classes; whole objects are held out."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from lightning_jv5.data.cache import fingerprint
from lightning_jv5.data.docstrings import Docstrings, NearCopies, Pair

if TYPE_CHECKING:
    import pyarrow as pa

Split = Literal["train", "heldout"]

_TREE_FORMAT = 1  # raise it whenever the split changes
_HELDOUT_SHARE = 0.2


class Place(NamedTuple):
    """Where in the tree an object is.

    Attributes:
        package: Import name of its package.
        module: Dotted path of its module.
        outer: Module and class of a method; of other objects their own dotted path.
    """

    package: str
    module: str
    outer: str


def place_of(module: str, name: str) -> Place:
    """Return the place of an object.

    >>> place_of("scipy.stats._fit", "FitResult.plot")
    Place(package='scipy', module='scipy.stats._fit', outer='scipy.stats._fit:FitResult')
    """
    return Place(module.partition(".")[0], module, f"{module}:{name.partition('.')[0]}")


def docstring_objects(split: Split, packages: Sequence[str] | None) -> tuple[list[Pair], str]:
    """Return the documented objects of a split, and a fingerprint of them.

    They are those of the training split of :class:`~lightning_jv5.data.Docstrings`, of which a fifth is held out, a
    class together with its methods. Objects that nearly repeat a held-out one are in neither split. So a model that was
    distilled on these docstrings has read held-out texts, without their place in the tree.

    Raises:
        ValueError: If there is no such split; as :class:`~lightning_jv5.data.Docstrings`.
    """
    from lightning_jv5.data.arrow_cache import cached_rows

    if split not in ("train", "heldout"):
        raise ValueError(f"Got split={split!r}; need 'train' or 'heldout'.")
    rows = Docstrings("train", packages=None if packages is None else list(packages)).load()
    key = fingerprint("docstring-tree", _TREE_FORMAT, rows._fingerprint, split)

    def tables() -> list["pa.Table"]:
        import pyarrow as pa

        pairs = [Pair(*values) for values in zip(*(rows[field][:] for field in Pair._fields), strict=True)]
        kept = _split(pairs, split)
        return [pa.table({field: [getattr(pair, field) for pair in kept] for field in Pair._fields}, _schema())]

    kept = cached_rows("docstring-tree", key, _schema(), tables)
    return [Pair(*values) for values in zip(*(kept[field][:] for field in Pair._fields), strict=True)], key


def _schema() -> "pa.Schema":
    import pyarrow as pa

    return pa.schema(dict.fromkeys(Pair._fields, pa.string()))


def _split(pairs: Sequence[Pair], split: Split) -> list[Pair]:
    pairs = sorted(pairs, key=lambda pair: (pair.module, pair.name))
    outer = [place_of(pair.module, pair.name).outer for pair in pairs]
    held_out = {name for name in set(outer) if int(fingerprint("heldout", name)[:8], 16) < _HELDOUT_SHARE * 2**32}
    copies = NearCopies()
    chosen = [pair for pair, name in zip(pairs, outer, strict=True) if name in held_out]
    if split == "heldout":
        return chosen
    for pair in chosen:
        copies.add(pair)
    return [pair for pair, name in zip(pairs, outer, strict=True) if name not in held_out and not copies.holds(pair)]


def generator(*seeds: str | int) -> np.random.Generator:
    """Return random numbers that depend on nothing but the seeds.

    >>> int(generator("example", 0).integers(1000)) == int(generator("example", 0).integers(1000))
    True
    """
    return np.random.default_rng(int(fingerprint(*seeds), 16))
