"""From one vector per token to one vector per text."""

from typing import Literal, get_args

import torch
from torch import Tensor

PoolingName = Literal["last", "mean", "cls"]


def pool(token_embeddings: Tensor, attention_mask: Tensor, pooling: PoolingName) -> Tensor:
    """Pool token embeddings into one embedding per text, in float32.

    Args:
        token_embeddings: Last hidden states, shape ``(texts, tokens, dim)``; padded on either side.
        attention_mask: Nonzero where there is a token, zero where there is padding, shape ``(texts, tokens)``.
        pooling: ``"last"`` (last attended position), ``"mean"`` (over attended positions) or ``"cls"`` (first attended
            position).

    Returns:
        Embeddings, float32, shape ``(texts, dim)``; not normalised.

    Raises:
        ValueError: If the shapes are not as above or the pooling has another name; on the CPU also if a text has no
            attended position (on a GPU that check would wait for the device, and a graph cannot make it).

    >>> tokens = torch.tensor([[[1.0], [3.0], [9.0]]])
    >>> pool(tokens, torch.tensor([[1, 1, 0]]), "mean"), pool(tokens, torch.tensor([[1, 1, 0]]), "last")
    (tensor([[2.]]), tensor([[3.]]))
    """
    if token_embeddings.ndim != 3 or attention_mask.shape != token_embeddings.shape[:2]:
        raise ValueError(
            f"Got token_embeddings {tuple(token_embeddings.shape)}, attention_mask {tuple(attention_mask.shape)}; need "
            "(texts, tokens, dim) and (texts, tokens). Pass the last hidden state and the mask it was computed with."
        )
    _check_name(pooling)
    attended = attention_mask != 0
    checked = attended.device.type == "cpu" and not torch.compiler.is_exporting()
    if checked and not bool(attended.any(dim=1).all()):
        empty = (~attended.any(dim=1)).nonzero().flatten().tolist()
        raise ValueError(f"Texts {empty} have no attended token; every text needs at least one. Drop or fill them.")
    if pooling == "mean":
        # where, not a product: padding may hold nan or inf, and 0 * nan is nan
        total = torch.where(attended.unsqueeze(-1), token_embeddings.float(), 0.0).sum(dim=1)
        return total / attended.sum(dim=1, keepdim=True)
    position = torch.arange(attended.shape[1], device=attended.device)
    if pooling == "last":
        chosen = torch.where(attended, position, -1).amax(dim=1)
    else:
        chosen = torch.where(attended, position, attended.shape[1]).amin(dim=1)
    rows = torch.arange(chosen.shape[0], device=chosen.device)  # len() would be a constant of an exported graph
    return token_embeddings[rows, chosen].float()


def pool_packed(token_embeddings: Tensor, bounds: Tensor, pooling: PoolingName) -> Tensor:
    """Pool token embeddings of texts that lie end to end into one embedding per text, in float32.

    Args:
        token_embeddings: Last hidden states, shape ``(total_tokens, dim)``.
        bounds: Where each text starts, and the end of the last; ascending integers, shape ``(texts + 1,)``.
        pooling: As for :func:`pool`.

    Returns:
        Embeddings, float32, shape ``(texts, dim)``; not normalised.

    Raises:
        ValueError: If the shapes are not as above or the pooling has another name.

    >>> pool_packed(torch.tensor([[1.0], [3.0], [9.0]]), torch.tensor([0, 2, 3]), "mean")
    tensor([[2.],
            [9.]])
    """
    if token_embeddings.ndim != 2 or bounds.ndim != 1:
        raise ValueError(
            f"Got token_embeddings {tuple(token_embeddings.shape)}, bounds {tuple(bounds.shape)}; need "
            "(total_tokens, dim) and (texts + 1,). Pass the only row of the last hidden state."
        )
    _check_name(pooling)
    if pooling == "mean":
        # unsafe: without it the sum of the lengths is compared on the host, which would wait for the device
        return torch.segment_reduce(token_embeddings.float(), "mean", lengths=bounds.diff(), axis=0, unsafe=True)
    return token_embeddings[bounds[1:] - 1 if pooling == "last" else bounds[:-1]].float()


def _check_name(pooling: str) -> None:
    if pooling not in get_args(PoolingName):
        raise ValueError(f"Got pooling {pooling!r}; need one of {', '.join(get_args(PoolingName))}.")
