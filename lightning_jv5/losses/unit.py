"""Unit length, in a form that every loss can rely on: float32 at least, and no infinite gradient at zero."""

import torch
from torch import Tensor


def unit_rows(embeddings: Tensor) -> Tensor:
    """Divide each row by its length; a row of zeros stays zero, and gets no gradient.

    ``F.normalize`` divides a zero row's gradient by its epsilon: one empty embedding then ruins the step.

    Args:
        embeddings: Any length; shape ``(..., dim)``.

    Returns:
        Unit-length rows of the same shape: float32 for half precision, else the dtype that arrived.

    >>> unit_rows(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
    tensor([[0.6000, 0.8000],
            [0.0000, 0.0000]])
    """
    embeddings = at_least_float32(embeddings)
    return embeddings * inverse_lengths(embeddings).unsqueeze(-1)


def inverse_lengths(embeddings: Tensor) -> Tensor:
    """Return one over the length of each row, shape ``(..., dim)`` to ``(...)``; zero for a row of zeros.

    >>> inverse_lengths(torch.tensor([[0.0, 2.0], [0.0, 0.0]]))
    tensor([0.5000, 0.0000])
    """
    length = torch.linalg.vector_norm(embeddings, dim=-1)
    is_zero = length == 0
    return torch.where(is_zero, 0.0, 1 / torch.where(is_zero, 1.0, length))


def at_least_float32(values: Tensor) -> Tensor:
    """Return half precision as float32: bfloat16 rounds cosines 0.980 and 0.981 to one number."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def check_rows(**named: Tensor | None) -> int:
    """Check that tensors are embeddings of one dimension, and return it.

    Args:
        named: Embeddings by the name that the error gives them; those that are None are passed over.

    Raises:
        ValueError: If one is not ``(rows, dim)``, their dims or dtypes differ, or, on the CPU, one is not finite (on a
            GPU that check would wait for the device).
    """
    there = {name: rows for name, rows in named.items() if rows is not None}
    for name, rows in there.items():
        if rows.ndim != 2 or not rows.is_floating_point():
            raise ValueError(
                f"Got {name} embeddings {tuple(rows.shape)} of {rows.dtype}; need floats of shape (rows, dim). "
                "Pool token embeddings first."
            )
        if rows.device.type == "cpu" and not bool(rows.isfinite().all()):
            bad = (~rows.isfinite()).any(1).nonzero().flatten().tolist()
            raise ValueError(
                f"Got NaN or infinite {name} embeddings in {len(bad)} rows, the first {bad[0]}; need finite numbers. "
                "Did training diverge? Lower the learning rate, or look at that text."
            )
    dtypes = {name: rows.dtype for name, rows in there.items()}
    if len(set(dtypes.values())) > 1:
        listed = ", ".join(f"{name} {dtype}" for name, dtype in dtypes.items())
        raise ValueError(f"Got embeddings of different dtypes: {listed}; need one. Convert them with .float().")
    dims = {name: rows.shape[1] for name, rows in there.items()}
    if len(set(dims.values())) > 1:
        listed = ", ".join(f"{name} {dim}" for name, dim in dims.items())
        raise ValueError(f"Got embeddings of different dimensions: {listed}; need one. Encode them with one model.")
    return next(iter(dims.values()))
