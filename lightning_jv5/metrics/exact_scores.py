"""Dot products of unit vectors that are the same in whatever batches, tiles or order they are summed."""

from torch import Tensor

from lightning_jv5.data.best_keys import slices

_STEPS = 2.0**24  # of a coordinate from 0 to 1; as many as float32 tells apart
_NEAR = 2**18  # coordinates gathered at once: two megabytes in float64, which stay near a core
_SPARSE = 16  # so many dot products of a matrix product take the time of a single one by itself


def on_grid(vectors: Tensor) -> Tensor:
    """Round coordinates to multiples of ``2**-24``: an error of at most ``3e-8`` each.

    Args:
        vectors: Of at most length 1, float32, shape ``(texts, dim)``.

    Returns:
        float32, of the same shape.

    >>> import torch
    >>> on_grid(torch.tensor([[1.0, 0.1, 2.0**-26]])) * 2**24
    tensor([[16777216.,  1677722.,        0.]])
    """
    return (vectors * _STEPS).round_().mul_(1 / _STEPS)


def slack(dim: int) -> float:
    """Return by how much a dot product of unit vectors in float32 may be off: the usual bound, twice.

    Source: Higham, Accuracy and Stability of Numerical Algorithms, eq. 3.5.

    >>> slack(384)
    4.57763671875e-05
    """
    return dim * 2.0**-23


def exact_scores(queries: Tensor, documents: Tensor, query: Tensor, column: Tensor) -> Tensor:
    """Return the dot product of each pair, rounded to float32 once.

    Products of :func:`on_grid` vectors are multiples of ``2**-48`` and their sums stay below 2, so float64 adds them
    up without an error.

    Args:
        queries: Of :func:`on_grid`, shape ``(queries, dim)``.
        documents: Likewise, shape ``(documents, dim)``.
        query: Row of each pair in ``queries``, int64, shape ``(pairs,)``.
        column: Row of each pair in ``documents``.

    Returns:
        float32, shape ``(pairs,)``.

    >>> import torch
    >>> exact_scores(torch.eye(2), torch.tensor([[0.5, 0.25]]), torch.tensor([0, 1]), torch.tensor([0, 0]))
    tensor([0.5000, 0.2500])
    """
    if _SPARSE * len(query) > len(queries) * len(documents):
        return exact_products(queries, documents)[query, column]
    scores = queries.new_empty(len(query))
    for some in slices(len(query), _NEAR // queries.shape[1]):
        of_query, of_document = queries.index_select(0, query[some]), documents.index_select(0, column[some])
        scores[some] = _float64(of_query).mul_(_float64(of_document)).sum(1).to(scores)
    return scores


def exact_products(queries: Tensor, documents: Tensor) -> Tensor:
    """Return what :func:`exact_scores` does of all pairs: float32, shape ``(queries, documents)``.

    >>> import torch
    >>> exact_products(torch.eye(2), torch.tensor([[0.5, 0.25]]))
    tensor([[0.5000],
            [0.2500]])
    """
    return (_float64(queries) @ _float64(documents).T).to(queries)


def _float64(vectors: Tensor) -> Tensor:
    # Apple's GPUs have no float64
    return (vectors.cpu() if vectors.device.type == "mps" else vectors).double()
