"""A backbone whose weights are divided among the ranks: what every rank must then do as often as the others."""

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist

from lightning_jv5.models.backbone import layer_stack


def is_sharded(module: nn.Module) -> bool:
    """Whether ranks hold a part of the weights each, so that every forward of ``module`` is a collective.

    True where FSDP2's ``fully_shard`` or FSDP's wrapper was applied to the module or to a part of it.

    >>> is_sharded(nn.Linear(2, 2))
    False
    """
    from torch.distributed.fsdp import FSDPModule, FullyShardedDataParallel

    return any(isinstance(part, FSDPModule | FullyShardedDataParallel) for part in module.modules())


def shard(backbone: nn.Module, mesh: Any) -> None:
    """Divide a transformer's weights among the ranks of a mesh: each of its blocks, then the rest.

    Ranks start from the weights of rank 0. Source: ``fully_shard``, FSDP2,
    https://docs.pytorch.org/docs/stable/distributed.fsdp.fully_shard.html

    Args:
        backbone: A transformer, on any device; afterwards on the mesh's. Where it is sharded already nothing happens.
        mesh: One-dimensional device mesh.
    """
    from torch.distributed.fsdp import fully_shard

    if is_sharded(backbone):
        return
    _, blocks = layer_stack(backbone)
    for block in blocks or ():
        fully_shard(block, mesh=mesh)
    fully_shard(backbone, mesh=mesh)


def same_on_all_ranks(tensors: Iterable[Tensor]) -> None:
    """Overwrite the tensors with those of rank 0. Every rank calls it."""
    with torch.no_grad():
        for tensor in tensors:
            dist.broadcast(tensor, src=0)


@contextlib.contextmanager
def collective_passes(backbone: nn.Module) -> Iterator[bool]:
    """Surround forward passes of a backbone that may be sharded; the value is whether it is.

    Inference mode is left, as weights that were gathered in it could not be trained on afterwards. Passes without
    gradients end with every weight sharded again: FSDP2 would keep the outermost ones whole for a backward pass, and
    an optimizer that is made then would be given copies.
    """
    from torch.distributed.fsdp import FSDPModule

    if not is_sharded(backbone):
        yield False
        return
    gradients = torch.is_grad_enabled()
    with torch.inference_mode(False), torch.set_grad_enabled(gradients):
        yield True
    if not gradients:
        for part in backbone.modules():
            if isinstance(part, FSDPModule):
                part.reshard()


def most_of_any_rank(count: int, device: torch.device) -> int:
    """Return the largest count that any rank has. Every rank calls it."""
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return count
    largest = torch.tensor(count, device=device)
    dist.all_reduce(largest, op=dist.ReduceOp.MAX)
    return int(largest)


def as_many_as_any_rank(chunks: Sequence[Tensor], device: torch.device) -> list[Tensor]:
    """Append chunks without texts until this rank has as many as that with most. Every rank calls it.

    >>> as_many_as_any_rank([torch.tensor([1, 0])], torch.device("cpu"))  # a single rank has the most
    [tensor([1, 0])]
    """
    missing = most_of_any_rank(len(chunks), device) - len(chunks)
    return [*chunks, *[torch.empty(0, dtype=torch.int64)] * missing]


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Where some weights are sharded, average over ranks the gradients of those that each rank holds whole.

    Gradients of sharded weights have been averaged in the backward pass. A weight without gradient here counts as zero,
    as another rank may have one. Where none is sharded nothing happens: averaging is then the strategy's. Every rank
    calls it.
    """
    parameters = list(parameters)
    if not any(map(is_shard, parameters)):
        return
    for parameter in parameters:
        if not parameter.requires_grad or is_shard(parameter):
            continue
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        dist.all_reduce(parameter.grad)
        parameter.grad /= dist.get_world_size()


def is_shard(tensor: Tensor) -> bool:
    """Whether this rank holds only a part of the tensor."""
    from torch.distributed.tensor import DTensor

    return isinstance(tensor, DTensor)


def _sharded_and_whole(tensors: Iterable[Tensor]) -> list[list[Tensor]]:
    """Separate what torch refuses to handle in one call."""
    parts: tuple[list[Tensor], list[Tensor]] = ([], [])
    for tensor in tensors:
        parts[not is_shard(tensor)].append(tensor)
    return [part for part in parts if part]


def gradient_norm(parameters: Iterable[nn.Parameter]) -> Tensor:
    """Return the L2 norm of all gradients, of sharded and of whole weights: a scalar, the same on every rank.

    >>> weight = nn.Parameter(torch.zeros(2))
    >>> weight.grad = torch.tensor([3.0, 4.0])
    >>> gradient_norm([weight])
    tensor(5.)
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norms = [torch.nn.utils.get_total_norm(part) for part in _sharded_and_whole(gradients)]
    return torch.nn.utils.get_total_norm([norm.full_tensor() if is_shard(norm) else norm for norm in norms])  # type: ignore[attr-defined]


def clip_gradient_norm(parameters: Sequence[nn.Parameter], max_norm: float) -> None:
    """Scale all gradients, of sharded and of whole weights, so that their common norm is at most ``max_norm``."""
    norm = gradient_norm(parameters)
    for part in _sharded_and_whole(parameters):
        torch.nn.utils.clip_grads_with_norm_(part, max_norm, norm)


def clip_gradient_values(parameters: Sequence[nn.Parameter], max_value: float) -> None:
    """Clamp each coordinate of all gradients, of sharded and of whole weights, to ``[-max_value, max_value]``."""
    for part in _sharded_and_whole(parameters):
        torch.nn.utils.clip_grad_value_(part, max_value)
