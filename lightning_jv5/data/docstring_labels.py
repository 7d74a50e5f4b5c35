"""Docstrings with the place in the module tree as their label: texts for clustering and classification."""

from collections import Counter
from typing import TYPE_CHECKING, Literal

from lightning_jv5.data.cache import fingerprint
from lightning_jv5.data.docstring_tree import Split, docstring_objects, generator, place_of
from lightning_jv5.data.source import Source, first_rows

if TYPE_CHECKING:
    import datasets


class DocstringLabels(Source):
    """Texts of docstrings, each with the package that it is from as its label.

    Whole objects are held out, not whole labels. Texts that name their own label are left out, as they would need no
    model. Rows have ``text``, ``label``, and the pair ``query``, ``document`` that the text was made of.

    Args:
        split: ``"train"``, or ``"heldout"`` to evaluate on.
        rows: How many rows, from the first; all if left out. They are in a pseudo-random order.
        packages: As for :class:`~lightning_jv5.data.Docstrings`.
        text: ``"summary"``: the first sentence; ``"all"``: the rest of the docstring behind it.
        labels: How many labels: the packages with most texts.
        balanced: Give every label as many rows as the smallest has.
        seed: Seed of the order, and of which rows a balanced label keeps.

    Raises:
        ValueError: If a setting is not possible; when loading, if there are too few labels or rows.
    """

    def __init__(
        self,
        split: Split = "train",
        *,
        rows: int | None = None,
        packages: list[str] | None = None,
        text: Literal["summary", "all"] = "all",
        labels: int = 16,
        balanced: bool = False,
        seed: int = 0,
    ) -> None:
        if text not in ("summary", "all"):
            raise ValueError(f"Got text={text!r}; need 'summary' or 'all'.")
        if labels < 2:
            raise ValueError(f"Got labels={labels}; need at least 2.")
        self.split, self.rows, self.packages = split, rows, packages
        self.text, self.labels, self.balanced, self.seed = text, labels, balanced, seed

    def load(self) -> "datasets.Dataset":
        """Return the rows of the split."""
        from datasets import Dataset

        objects, key = docstring_objects(self.split, self.packages)
        # The labels are those of the training split, in both splits
        training, _ = docstring_objects("train", self.packages)
        counts = Counter(place_of(pair.module, pair.name).package for pair in training)
        kept = [label for label, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))[: self.labels]]
        if len(kept) < self.labels:
            raise ValueError(
                f"Got labels={self.labels}, but the docstrings are of {len(kept)} packages. Ask for fewer labels, or "
                "add packages."
            )
        found: dict[str, list[dict[str, str]]] = {label: [] for label in kept}
        order = generator("docstring-labels", self.split, self.seed).permutation(len(objects))
        for pair in (objects[place] for place in order):
            label = place_of(pair.module, pair.name).package
            text = pair.query if self.text == "summary" else f"{pair.query} {pair.document}"
            if label in found and label.lower() not in text.lower():
                found[label].append({"text": text, "label": label, "query": pair.query, "document": pair.document})
        if empty := [label for label, texts in found.items() if not texts]:
            raise ValueError(f"No text with the label {empty[0]!r} is in split={self.split!r}. Ask for fewer labels.")
        most = min(map(len, found.values())) if self.balanced else None
        texts = [row for rows in found.values() for row in rows[:most]]
        order = generator("docstring-labels", "rows", self.split, self.seed).permutation(len(texts))
        dataset = Dataset.from_list([texts[place] for place in order])
        dataset._fingerprint = fingerprint("docstring-labels", key, self.text, self.labels, self.balanced, self.seed)
        if self.rows is not None and self.rows > len(dataset):
            raise ValueError(
                f"Got rows={self.rows}, but split={self.split!r} with labels={self.labels} has {len(dataset)} rows. "
                "Ask for fewer."
            )
        return first_rows(dataset, self.rows, origin="docstring labels")
