"""Rows from the Hugging Face hub."""

import re
from typing import TYPE_CHECKING, Any

from lightning_jv5.data.bad_rows import OnBadRow
from lightning_jv5.data.row_rules import RowRules
from lightning_jv5.data.source import Source, did_you_mean

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
        filter: Condition on the renamed columns that a row must meet, such as ``"score >= 4 and lang == 'de'"``:
            :class:`~lightning_jv5.data.row_filter.RowFilter`.
        rows: How many rows, from the first that meet the condition; all if left out.
        on_bad_row: ``"error"`` at the first row that cannot be used, or ``"skip"`` them, counted.
        max_bad_share: Most rows that may be skipped, as a share of all.

    Raises:
        ValueError: If an argument is wrong.
    """

    def __init__(
        self,
        path: str,
        name: str | None = None,
        *,
        split: str = "train",
        columns: dict[str, str] | None = None,
        filter: str | None = None,  # named as it reads in YAML
        revision: str | None = None,
        rows: int | None = None,
        on_bad_row: OnBadRow = "error",
        max_bad_share: float = 0.01,
    ) -> None:
        self.path = path
        self.name = name
        self.split = split
        self.revision = revision
        self.rules = RowRules(columns, filter=filter, rows=rows, on_bad_row=on_bad_row, max_bad_share=max_bad_share)

    def load(self) -> "datasets.Dataset":
        """Return the rows, downloading them if this machine has not done so before.

        Raises:
            ValueError: If the hub cannot be reached, or has no such data set, configuration or split; if columns do not
                fit, a text is empty, or there are fewer rows than asked for.
        """
        return self.rules.apply(self._open(streaming=False), self._origin)

    def stream(self) -> "datasets.IterableDataset":
        """Return the rows as they are downloaded.

        Raises:
            ValueError: As :meth:`load`; what is wrong with a row is found when it is read.
        """
        return self.rules.apply_stream(self._open(streaming=True), self._origin)

    @property
    def _origin(self) -> str:
        return " ".join(filter(None, [self.path, self.name, self.split]))

    def _open(self, *, streaming: bool) -> Any:
        return open_hub(self.path, self.name, split=self.split, revision=self.revision, streaming=streaming)


def open_hub(
    path: str,
    name: str | None = None,
    *,
    split: str | None = None,
    revision: str | None = None,
    streaming: bool = False,
) -> Any:
    """Load a data set of the hub, or a local folder laid out like one, with errors that say what to do.

    Args:
        path: Name on the hub or folder.
        name: Configuration.
        split: Split; by default all, as a dict.
        revision: Branch, tag or commit.
        streaming: Whether rows are read as they are downloaded.

    Raises:
        ValueError: If the hub cannot be reached, or has no such data set, configuration or split.
    """
    from datasets import load_dataset

    try:
        return load_dataset(path, name, split=split, revision=revision, streaming=streaming)
    except (ValueError, OSError, RuntimeError) as error:  # ConnectionError and "not found" are OSErrors
        raise ValueError(_explain(error, path, name, split)) from error


def _explain(error: Exception, path: str, name: str | None, split: str | None) -> str:
    text = str(error)
    if split is not None and "nknown split" in text:
        known = re.findall(r"'([^']+)'|\"([^\"]+)\"", text.partition("one of")[2])
        splits = [first or second for first, second in known]
        hint = did_you_mean(re.split(r"[\[+]", split)[0], splits)
        return f"{path} has no split {split!r}; it has {', '.join(splits) or text}.{hint}"
    if isinstance(error, ConnectionError) or "offline" in text.lower():
        return (
            f"Cannot reach the hub for {path!r}, and it is not in this machine's cache: {text}. Load it once "
            "with a network, or use LocalFiles with files that are here."
        )
    if isinstance(error, FileNotFoundError):
        return (
            f"No data set {path!r} on the hub (or no access to it), and no folder of that name: {text}. Check "
            "the name; log in with `hf auth login` if it is private."
        )
    return f"Cannot load {path!r} (name={name!r}, split={split!r}): {text}. Set what it names."
