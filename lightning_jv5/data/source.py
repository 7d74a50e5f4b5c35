"""Where rows come from: the contract of a data source, and the checks that all sources share."""

import difflib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from lightning_jv5.rebuildable import Rebuildable

if TYPE_CHECKING:
    import datasets

    from lightning_jv5.data.vector_manifest import HasFacts

# What a row must have at least one set of; further columns (negatives, teacher vectors, ids) are passed through.
LAYOUTS = (("query", "document"), ("text1", "text2"), ("text",), ("query", "positive", "negative"))


class Source(Rebuildable, ABC):
    """Rows for training or evaluation, under the column names that everything here uses.

    A source's ``load`` returns one of the layouts: ``query, document`` (with negatives as columns ``negative``,
    ``negative_2``, ..., empty where a row has fewer, or as a list ``negatives``), ``text1, text2, score`` (or
    ``label``, or neither), ``text, label`` (or a list of labels), ``text`` alone, or, to rerank,
    ``query, positive, negative``, the last two lists of texts. Other columns are kept; precomputed teacher vectors are
    columns named after the text's own (``query_teacher``).

    >>> class Greetings(Source):
    ...     def load(self):
    ...         from datasets import Dataset
    ...         return Dataset.from_dict({"text": ["hello", "good evening"]})
    >>> len(Greetings().load())
    2
    """

    @abstractmethod
    def load(self) -> "datasets.Dataset":
        """Return the rows; cheap when called again, in this process or another."""

    def stream(self) -> "datasets.IterableDataset":
        """Return the rows one after the other, without having read all of them; every time in the same order."""
        return self.load().to_iterable_dataset()

    def check_vectors(self, teacher: "HasFacts", columns: Mapping[str, str]) -> None:
        """Refuse teacher vectors among the columns that this teacher would not give, where that is known of them.

        Args:
            teacher: The teacher of the config.
            columns: From each column of vectors to the role of its texts.

        Raises:
            ValueError: If there are such; names what differs.
        """


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return a hint at the nearest known name, as a sentence to append to an error; empty if none is near.

    >>> did_you_mean("qurey", ["query", "document"])
    " Did you mean 'query'?"
    """
    nearest = difflib.get_close_matches(name, sorted(known), n=1)
    return f" Did you mean {nearest[0]!r}?" if nearest else ""


def new_names(arrived: Sequence[str], columns: Mapping[str, str], origin: str) -> dict[str, str]:
    """Return which columns to rename so that all have canonical names.

    Args:
        arrived: The columns as they were read.
        columns: From our name (``query``, ``document``, ``text``, ...) to the data set's own.
        origin: Where the rows are from, for the errors.

    Returns:
        From the data set's own name to ours, for those that differ.

    Raises:
        ValueError: If a column does not exist, is asked for twice, or its new name is taken; or if the result has none
            of the layouts of :class:`Source`.

    >>> new_names(["question", "answer", "id"], {"query": "question", "document": "answer"}, "faq.jsonl")
    {'question': 'query', 'answer': 'document'}
    """
    wanted = [name for layout in LAYOUTS for name in layout] + ["score", "label", "negatives"]
    for ours, theirs in columns.items():
        if theirs not in arrived:
            hint = did_you_mean(theirs, arrived)
            raise ValueError(
                f"{origin} has the columns {', '.join(arrived)}; columns={{{ours!r}: {theirs!r}}} needs a column "
                f"{theirs!r}.{hint} Name one that is there: columns={{our name: its name in the data}}."
            )
        if list(columns.values()).count(theirs) > 1:
            raise ValueError(f"{origin}: columns={dict(columns)!r} takes {theirs!r} twice; give each column one name.")
        if ours in arrived and ours not in columns.values():
            raise ValueError(
                f"{origin} already has a column {ours!r}, so {theirs!r} cannot be renamed to it. "
                f"Say where the other one goes: columns={{{ours!r}: {theirs!r}, 'another_name': {ours!r}}}."
            )
    renaming = {theirs: ours for ours, theirs in columns.items() if theirs != ours}
    present = [renaming.get(name, name) for name in arrived]
    if not any(set(layout) <= set(present) for layout in LAYOUTS):
        hints = "".join(did_you_mean(name, wanted) for name in present if name not in wanted)
        layouts = " or ".join(" + ".join(layout) for layout in LAYOUTS)
        raise ValueError(
            f"{origin} has the columns {', '.join(present)}; need {layouts}."
            f"{hints} Say which is which: columns={{'query': ..., 'document': ...}}."
        )
    return renaming


def first_rows(dataset: "datasets.Dataset", rows: int | None, origin: str) -> "datasets.Dataset":
    """Return the first rows, or all of them for None.

    Raises:
        ValueError: If there are fewer rows than asked for.
    """
    if rows is None:
        return dataset
    if not 0 < rows <= len(dataset):
        raise ValueError(
            f"Got rows={rows}, but {origin} has {len(dataset)} rows; ask for 1 to {len(dataset)}, or None for all."
        )
    return dataset.select(range(rows))
