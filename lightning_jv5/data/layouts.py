"""How rows become the roles of a batch: pairs with their negatives, scored pairs, texts."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lightning_jv5.data.row_checks import NEGATIVE_LIST, negative_columns

# Asymmetric retrieval has a prompt for queries; everything else is a document: arXiv:2602.15547, section 3
_PROMPTED_AS_QUERY = "query"


@dataclass(frozen=True)
class RoleRows:
    """Where the texts of a role are.

    Attributes:
        rows: The rows that they stand in, in order; int64.
        counts: How many of ``rows`` belong to each query, where that is not one (or what the columns hold).
        labels: The class of each of ``rows``, where the layout knows it; int64.
    """

    rows: NDArray[np.int64]
    counts: NDArray[np.int64] | None = None
    labels: NDArray[np.int64] | None = None


class Layout(ABC):
    """Which columns and rows of a set the texts of a batch are in.

    Attributes:
        columns: The columns of each role: ``{"query": ("query",), "negatives": ("negative", "negative_2")}``.
        size: How many numbers can be drawn: for most layouts the rows.
        grades: Which of the columns ``score`` and ``label`` are about the texts.
    """

    columns: Mapping[str, tuple[str, ...]]
    size: int
    grades: tuple[str, ...]

    @abstractmethod
    def roles(self, numbers: NDArray[np.int64], key: int) -> dict[str, RoleRows]:
        """Return where the texts of a batch are.

        Args:
            numbers: What has been drawn, each below :attr:`size`.
            key: For whatever else is drawn at random: depends on the seed and the step.
        """

    @property
    def text_columns(self) -> list[str]:
        """All columns of texts, each once."""
        return list(dict.fromkeys(column for columns in self.columns.values() for column in columns))


@dataclass(frozen=True)
class RowByRow(Layout):
    """Each row is one example: what its columns are named says what it is."""

    columns: Mapping[str, tuple[str, ...]]
    size: int = 0
    grades: tuple[str, ...] = ()

    def roles(self, numbers: NDArray[np.int64], key: int) -> dict[str, RoleRows]:
        """Return the same rows for every role."""
        rows = RoleRows(numbers)
        return dict.fromkeys(self.columns, rows)


def row_by_row(names: Sequence[str], size: int, origin: str) -> RowByRow:
    """Return the layout that the names of the columns say.

    Args:
        names: The columns of the rows.
        size: How many rows there are.
        origin: Where they are from, for the error.

    Raises:
        ValueError: If they are none of pairs, scored pairs or texts; or have negatives both as columns and as a list.

    >>> row_by_row(["query", "document", "negative", "negative_2", "id"], 10, "faq").columns["negatives"]
    ('negative', 'negative_2')
    >>> row_by_row(["text1", "text2", "score"], 10, "sts").columns
    {'query': ('text1',), 'document': ('text2',)}
    """
    present = set(names)
    grades: tuple[str, ...] = ()  # a `label` or `score` beside a query and a document may mean anything
    columns: dict[str, tuple[str, ...]]
    if {"query", "document"} <= present:
        columns = {"query": ("query",), "document": ("document",)}
        negatives = tuple(negative_columns(list(names)))
        if negatives and NEGATIVE_LIST in present:
            raise ValueError(
                f"{origin} has negatives as columns ({', '.join(negatives)}) and as a list ({NEGATIVE_LIST!r}); need "
                "one of them. Give the other another name with the source's columns."
            )
        if negatives or NEGATIVE_LIST in present:
            columns["negatives"] = negatives or (NEGATIVE_LIST,)
    elif {"text1", "text2"} <= present:
        columns = {"query": ("text1",), "document": ("text2",)}
        grades = ("score",) if "score" in present else ()
    elif "text" in present or "query" in present:
        columns = {"query": ("text" if "text" in present else "query",)}
        grades = ("label",) if {"text", "label"} <= present else ()
    else:
        raise ValueError(
            f"{origin} has the columns {', '.join(names)}; training needs 'query' and 'document', 'text1', 'text2' and "
            "'score', or 'text'. Say which is which with the source's columns."
        )
    return RowByRow(columns, size, grades)


def prompt_role(column: str) -> str:
    """Return whose prompt a column has unless told otherwise.

    >>> [prompt_role(column) for column in ("query", "document", "text1", "negative_2")]
    ['query', 'document', 'document', 'document']
    """
    return "query" if column == _PROMPTED_AS_QUERY else "document"
