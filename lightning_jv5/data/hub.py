"""Rows from the Hugging Face hub."""

import re
from typing import TYPE_CHECKING

from lightning_jv5.data.source import Source, check_texts, did_you_mean, first_rows, rename_columns, text_columns

if TYPE_CHECKING:
    import datasets


class HubDataset(Source):
    """One split of a data set on the Hugging Face hub, or of a local folder laid out like one.

    Code that comes with a data set is never run.

    Args:
        path: Name on the hub (``"owner/name"``) or folder.
        name: Configuration (subset) of the data set, if it has several.
        split: Split, or a part of one in the hub's notation: ``"train[:10%]"``.
        columns: From our name (``query``, ``document``, ``text``, ...) to the data set's own.
        revision: Branch, tag or commit; a commit makes runs repeatable.
        rows: How many rows, from the first; all if left out.
    """

    def __init__(
        self,
        path: str,
        name: str | None = None,
        *,
        split: str = "train",
        columns: dict[str, str] | None = None,
        revision: str | None = None,
        rows: int | None = None,
    ) -> None:
        self.path = path
        self.name = name
        self.split = split
        self.columns = columns
        self.revision = revision
        self.rows = rows

    def load(self) -> "datasets.Dataset":
        """Return the rows, downloading them if this machine has not done so before.

        Raises:
            ValueError: If the hub cannot be reached, or has no such data set, configuration or split; if columns do not
                fit, a text is empty, or there are fewer rows than asked for.
        """
        from datasets import load_dataset

        origin = " ".join(filter(None, [self.path, self.name, self.split]))
        try:
            dataset = load_dataset(self.path, self.name, split=self.split, revision=self.revision)
        except (ValueError, OSError, RuntimeError) as error:  # ConnectionError and "not found" are OSErrors
            raise ValueError(self._explain(error)) from error
        dataset = rename_columns(dataset, self.columns or {}, origin)
        dataset = first_rows(dataset, self.rows, origin)
        check_texts(dataset, text_columns(dataset), origin)
        return dataset

    def _explain(self, error: Exception) -> str:
        text = str(error)
        if "nknown split" in text:
            known = re.findall(r"'([^']+)'|\"([^\"]+)\"", text.partition("one of")[2])
            splits = [first or second for first, second in known]
            hint = did_you_mean(re.split(r"[\[+]", self.split)[0], splits)
            return f"{self.path} has no split {self.split!r}; it has {', '.join(splits) or text}.{hint}"
        if isinstance(error, ConnectionError) or "offline" in text.lower():
            return (
                f"Cannot reach the hub for {self.path!r}, and it is not in this machine's cache: {text}. Load it once "
                "with a network, or use LocalFiles with files that are here."
            )
        if isinstance(error, FileNotFoundError):
            return (
                f"No data set {self.path!r} on the hub (or no access to it), and no folder of that name: {text}. Check "
                "the name; log in with `hf auth login` if it is private."
            )
        return f"Cannot load {self.path!r} (name={self.name!r}, split={self.split!r}): {text}. Set what it names."
