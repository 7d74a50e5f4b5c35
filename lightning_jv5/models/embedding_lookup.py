"""Rows of a trained embedding table, looked up for many chunks at once."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn


def looked_up(backbone: nn.Module, token_ids: Sequence[Tensor]) -> Iterator[Tensor]:
    """Yield what to call the backbone with for each chunk: rows of its embedding table where that is trained.

    The gradient of a table is dense. Made anew for each chunk, it takes a seventh of a step of 64 short texts. As many
    tokens are looked up together as the table has rows: they take no more memory than its gradient.

    Args:
        backbone: A transformer, which takes ``input_ids`` or ``inputs_embeds``.
        token_ids: Of each chunk, of any shape.

    Yields:
        For each chunk its rows, with one dimension more; or its token ids, where there is no gradient to spare.
    """
    table: Any = getattr(backbone, "get_input_embeddings", lambda: None)()
    # A weight of another type is sharded or quantised, and ready inside the backbone's own forward only
    trained = isinstance(table, nn.Embedding) and type(table.weight) is nn.Parameter and table.weight.requires_grad
    if not trained or not torch.is_grad_enabled():
        yield from token_ids
        return
    for group in _groups(token_ids, table.num_embeddings):
        rows = table(torch.cat([ids.flatten() for ids in group]))
        parts = rows.split([ids.numel() for ids in group])
        for ids, part in zip(group, parts, strict=True):
            yield part.view(*ids.shape, -1)


def input_name(tokens: Tensor) -> str:
    """Return the argument of the backbone that token ids, or rows of the embedding table, go to."""
    return "inputs_embeds" if tokens.is_floating_point() else "input_ids"


def _groups(chunks: Sequence[Tensor], most: int) -> Iterator[list[Tensor]]:
    """Yield runs of chunks with at most so many tokens together; a longer chunk is a run of its own."""
    group: list[Tensor] = []
    for chunk in chunks:
        if group and sum(other.numel() for other in group) + chunk.numel() > most:
            yield group
            group = []
        group.append(chunk)
    if group:
        yield group
