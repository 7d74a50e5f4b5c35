"""The order of documents whose scores are equal."""

import torch
from torch import Tensor


class TieOrder:
    """Positions of the documents' ids among all ids sorted ascending, checked once for any number of metrics.

    Args:
        places: Position of each document; integers, shape ``(document_count,)``.
        document_count: Number of documents.

    Attributes:
        places: The same as int32.

    Raises:
        ValueError: If a position is missing.

    >>> TieOrder(torch.tensor([2, 0, 1]), document_count=3).places
    tensor([2, 0, 1], dtype=torch.int32)
    """

    def __init__(self, places: Tensor, *, document_count: int) -> None:
        if places.shape != (document_count,) or not places.sort().values.equal(
            torch.arange(document_count, dtype=places.dtype, device=places.device)
        ):
            raise ValueError(
                f"Got a tie order of shape {tuple(places.shape)}; need each of 0 to {document_count - 1} once. "
                "Pass the position of each document's id among the sorted ids."
            )
        self.places = places.to(torch.int32, copy=True)
