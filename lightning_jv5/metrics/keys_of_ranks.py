"""What several ranks found, put together: the best keys, the rows that were seen, and the order after rescoring."""

import functools

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_jv5.data.best_keys import LAST_TIE, NOTHING, ties_of


def merge_ranks(keys: Tensor) -> Tensor:
    """Best keys of all ranks, shape ``(world, queries, depth)``; two at a time, as sorting all would take memory."""
    return functools.reduce(_merge_two, keys.unbind())


def _merge_two(left: Tensor, right: Tensor) -> Tensor:
    """Best keys of two ranks, shape ``(queries, depth)``; each document once, although both may have it."""
    candidates = torch.cat([left, right], dim=1).sort(descending=True).values
    ties, order = (candidates & LAST_TIE).sort(stable=True)
    is_repeat = torch.zeros_like(candidates, dtype=torch.bool)
    is_repeat.scatter_(1, order, F.pad(ties[:, 1:] == ties[:, :-1], (1, 0), value=False))
    return candidates.masked_fill(is_repeat, NOTHING).topk(left.shape[1]).values


def union_of_ranks(document_bits: Tensor) -> Tensor:
    """Rows that any rank has seen, a bit each, of those of all ranks: shape ``(world, bytes)``."""
    return functools.reduce(Tensor.bitwise_or, document_bits.unbind())


def count_bits(document_bits: Tensor) -> int:
    """Number of bits that are set."""
    return sum(int(((document_bits >> bit) & 1).sum()) for bit in range(8))


def side_by_side(keys: Tensor) -> Tensor:
    """Lay keys of all ranks, shape ``(world, queries, depth)``, side by side: ``(queries, world * depth)``."""
    return keys.transpose(0, 1).flatten(1)


def rescored_order(keys: Tensor, rescored: Tensor) -> Tensor:
    """Replace each key by the one of the same document in ``rescored``, shape ``(queries, any)``, and sort them."""
    ties, order = ties_of(rescored).sort()
    place = torch.searchsorted(ties, ties_of(keys).clamp(min=0)).clamp(max=ties.shape[1] - 1)
    found = rescored.gather(1, order.gather(1, place))
    return found.masked_fill(keys == NOTHING, NOTHING).sort(descending=True).values
