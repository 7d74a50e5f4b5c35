"""Pairs of a query and a document, looked up by the documents of a tile."""

from collections.abc import Collection, Mapping
from itertools import chain

import numpy as np
import torch
from torch import Tensor


class DocumentPairs:
    """Pairs of a query row and a document row, ordered by document; on the CPU, so that no lookup waits for a device.

    Args:
        query: Query row of each pair, int64, shape ``(pairs,)``.
        document: Document row of each pair.

    Attributes:
        query: Query rows, in the order of their documents.
        document: Document rows, ascending.
        order: Where each of these stood in the arguments.

    >>> pairs = DocumentPairs(torch.tensor([0, 1, 1]), torch.tensor([7, 3, 7]))
    >>> place, column = pairs.among(torch.tensor([5, 7]))
    >>> pairs.query[place], column
    (tensor([0, 1]), tensor([1, 1]))
    """

    def __init__(self, query: Tensor, document: Tensor) -> None:
        self.document, self.order = document.cpu().sort(stable=True)
        self.query = query.cpu()[self.order]

    def among(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Find the pairs whose document is in a tile.

        Args:
            rows: Document rows of the tile, int64, shape ``(documents,)``, on the CPU.

        Returns:
            For each pair its place in :attr:`query` and :attr:`document`, and the column of the document in the tile.
        """
        first = torch.searchsorted(self.document, rows)
        counts = torch.searchsorted(self.document, rows, right=True) - first
        column = torch.repeat_interleave(torch.arange(len(rows)), counts)
        place = torch.arange(len(column)) + (first - counts.cumsum(0) + counts)[column]
        return place, column


def pairs_of(
    documents_of: Mapping[int, int] | Mapping[int, Collection[int]], what: str, *, query_count: int, document_count: int
) -> Tensor:
    """Return the pairs that a mapping means as numbers ``document * query_count + query``, ascending, each once.

    Args:
        documents_of: Document row or rows of each query row.
        what: How an error calls them.
        query_count: Number of queries.
        document_count: Number of documents.

    Raises:
        ValueError: If a row does not exist.

    >>> pairs_of({0: [2, 1, 2], 1: []}, "candidates", query_count=2, document_count=3)
    tensor([2, 4])
    """
    lists = [(found,) if not isinstance(found, Collection) else found for found in documents_of.values()]
    counts = np.fromiter(map(len, lists), np.int64, len(lists))
    document = np.fromiter(chain.from_iterable(lists), np.int64, int(counts.sum()))
    query = np.repeat(np.fromiter(documents_of, np.int64, len(lists)), counts)
    for kind, row, count in (("query", query, query_count), ("document", document, document_count)):
        if len(row) and not 0 <= row.min() <= row.max() < count:
            raise ValueError(
                f"Got {what} with {kind} rows {row.min()} to {row.max()}; need 0 to {count - 1}. "
                f"Pass positions in the task's column, and leave out the {what} that are not in it."
            )
    return torch.from_numpy(np.unique(document * query_count + query))
