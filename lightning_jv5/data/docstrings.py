"""Real text that is on every machine: the docstrings of installed packages, first line -> body."""

import ast
import hashlib
import importlib.metadata
import importlib.util
import inspect
import re
import sys
import sysconfig
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from lightning_jv5.data.cache import atomic_folder, cache_folder, fingerprint
from lightning_jv5.data.source import Source, did_you_mean
from lightning_jv5.rebuildable import Plain

if TYPE_CHECKING:
    import datasets

# Raise it whenever the pairs change: sets cached by older code are then built anew.
_FORMAT = 1

# Every entry is the standard library or comes with our own dependencies; the sub packages leave out what is large and
# says little (kernels, model zoos).
DEFAULT_PACKAGES = (
    "stdlib",
    "numpy",
    "torchmetrics",
    "lightning",
    "datasets",
    "peft",
    "sklearn",
    "scipy",
    "pandas",
    "matplotlib",
    "networkx",
    "huggingface_hub",
    "jsonargparse",
    "fsspec",
    "tensorboard",
    "torch.nn",
    "torch.optim",
    "torch.distributions",
    "torch.utils",
    "torch.distributed",
    "torch.autograd",
    "torch.ao",
    "transformers.generation",
    "transformers.utils",
    "transformers.integrations",
    "accelerate",
    "jinja2",
    "PIL",
    "joblib",
    "werkzeug",
    "narwhals",
    "fontTools",
    "click",
)


class Pair(NamedTuple):
    """One docstring, taken apart.

    Attributes:
        query: Its summary sentence.
        document: The prose that follows.
        module: Dotted path of the module it was found in.
        name: Qualified name inside the module; empty for the module's own docstring.
    """

    query: str
    document: str
    module: str
    name: str


class Docstrings(Source):
    """Pairs (summary sentence -> rest of the text) from the docstrings of installed packages.

    The sources are parsed, never imported. Whole modules are held out, and training pairs that nearly repeat a held-out
    one are removed: packages carry the same text in sibling modules. The result is cached; it depends on the versions
    of the installed packages.

    Rows have ``query``, ``document``, ``module`` and ``name``; no two share a query or a document.

    Args:
        split: ``"train"``, or ``"heldout"`` for pairs to evaluate on.
        rows: How many rows, from the first; all if left out. Training rows are in a pseudo-random order, so a part is
            as wide a mix as the whole.
        packages: Import names, ``"stdlib"`` for the standard library; a dotted name is a part of a package.
        seed: Picks the order of the training rows; held-out rows are the same for all seeds.
        heldout: How many pairs are held out.
    """

    def __init__(
        self,
        split: Literal["train", "heldout"] = "train",
        *,
        rows: int | None = None,
        packages: list[str] | None = None,
        seed: int = 0,
        heldout: int = 500,
    ) -> None:
        if split not in {"train", "heldout"}:
            raise ValueError(f"Got split={split!r}; need 'train' or 'heldout'.")
        if heldout < 1:
            raise ValueError(f"Got heldout={heldout}; need at least 1 held-out pair.")
        self.split = split
        self.rows = rows
        self.packages = list(DEFAULT_PACKAGES) if packages is None else packages
        self.seed = seed
        self.heldout = heldout

    def load(self) -> "datasets.Dataset":
        """Return the rows of the split, building and caching both splits if they are not there yet.

        Raises:
            ValueError: If a package is not installed, or there are fewer rows than asked for.
        """
        from datasets import Dataset

        from lightning_jv5.data.source import first_rows

        folders = {name: _locate(name) for name in self.packages}
        versions: list[Plain] = [[name, _version(name, folder)] for name, folder in sorted(folders.items())]
        key = fingerprint("docstrings", _FORMAT, list(sys.version_info[:3]), versions, self.heldout)
        final = cache_folder() / f"docstrings-{fingerprint(key, self.seed)}"
        if not final.is_dir():
            train, heldout = split_pairs(_read(folders), self.heldout, self.packages)
            train.sort(key=lambda pair: _keyed_hash(f"order {self.seed}", pair.query))
            with atomic_folder(final) as folder:
                _write(train, folder / "train.arrow")
                _write(heldout, folder / "heldout.arrow")
        dataset = Dataset.from_file(str(final / f"{self.split}.arrow"))
        dataset._fingerprint = fingerprint(key, self.seed, self.split)  # datasets' own changes when the file is rebuilt
        if self.rows is not None and self.rows > len(dataset):
            raise ValueError(
                f"Got rows={self.rows}, but the docstrings of {', '.join(self.packages)} give {len(dataset)} rows for "
                f"split={self.split!r} with heldout={self.heldout}. Ask for fewer rows, or add packages: "
                f"{', '.join(sorted(set(DEFAULT_PACKAGES) - set(self.packages))) or 'any other that is installed'}."
            )
        return first_rows(dataset, self.rows, origin="docstrings")


# --------------------------------------------------------------------------------------------------------------------
