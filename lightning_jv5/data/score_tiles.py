"""Scores of queries and documents, computed a tile at a time in memory that is used over and over."""

import contextlib
import threading
from collections.abc import Iterator

import torch
from torch import Tensor

TILE_SCORES = 2**22  # held at once: 16 MiB, which the caches of a processor hold
TILE_DOCUMENTS = 2**12


class _Memory(threading.local):
    scores: Tensor | None = None


_MEMORY = _Memory()


def products(queries: Tensor, documents: Tensor) -> Tensor:
    """Return the dot products of all queries with all documents of a tile: shape ``(queries, documents)``.

    On the CPU they lie document by document, which is multiplied faster, and the next call in the same thread writes
    over them: pages that come anew for each tile would take a fifth of the time of a search.

    Args:
        queries: float32, shape ``(queries, dim)``.
        documents: float32, shape ``(documents, dim)``.

    >>> products(torch.eye(2), torch.tensor([[0.5, 0.25]]))
    tensor([[0.5000],
            [0.2500]])
    """
    shape = len(queries), len(documents)
    if queries.device.type != "cpu" or shape[0] * shape[1] > TILE_SCORES:
        return queries @ documents.T
    if _MEMORY.scores is None:
        with torch.inference_mode(mode=False):  # in which a Trainer validates: such memory is of no use outside
            _MEMORY.scores = torch.empty(TILE_SCORES)
    with torch.no_grad():
        return torch.mm(documents, queries.T, out=_MEMORY.scores[: shape[0] * shape[1]].view(shape[::-1])).T


@contextlib.contextmanager
def full_float32(device: torch.device) -> Iterator[None]:
    """Multiply in float32 whatever training uses: bfloat16 and TF32 round cosines 0.980 and 0.981 to one number."""
    backends = torch.backends
    backend = backends.cuda.matmul if device.type == "cuda" else backends.mkldnn.matmul  # type: ignore[attr-defined]
    before = backend.fp32_precision
    backend.fp32_precision = "ieee"
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        backend.fp32_precision = before
