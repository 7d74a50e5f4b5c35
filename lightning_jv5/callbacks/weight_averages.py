"""Averages of weights along a run: which steps are in them, how they are kept, and how a module computes with one."""

import contextlib
from collections.abc import Iterable, Iterator, Mapping, MutableMapping, Sequence

import torch
from torch import Tensor, nn


def planned_steps(steps: Sequence[int | float], total: int | float) -> list[int]:
    """Return optimizer steps in ascending order, fractions of the run's length among them turned into steps.

    Args:
        steps: Whole numbers, or fractions in (0, 1), which become the nearest step that is neither before the first
            nor the last.
        total: Optimizer steps of the run; infinite where it has no end.

    Raises:
        ValueError: If a step is beyond the end, two are the same, or there is a fraction of a run without end.

    >>> planned_steps([900, 0.5], total=1000)
    [500, 900]
    """
    if total == float("inf") and not all(map(is_step, steps)):
        raise ValueError(
            f"AdapterAveraging got steps {list(steps)} in a run without end; fractions need its length. Set "
            "trainer.max_steps or trainer.max_epochs, or give whole numbers of steps."
        )
    whole = [step if is_step(step) else max(1, min(int(total) - 1, round(step * total))) for step in steps]
    beyond = [step for step in whole if step > total]
    if beyond or len(set(whole)) != len(whole):
        raise ValueError(
            f"AdapterAveraging got steps {list(steps)}, which are {whole} in this run of {total} optimizer steps; need "
            "each once, and none beyond the end. Correct the list (accumulated batches are one step)."
        )
    return sorted(map(int, whole))


def trainable_weights(module: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters that train, by name; one that is used in two places is there once.

    >>> layer = nn.Linear(2, 1)
    >>> layer.bias = layer.bias.requires_grad_(False)
    >>> list(trainable_weights(layer))
    ['weight']
    """
    return {name: weight for name, weight in module.named_parameters() if weight.requires_grad}


@torch.no_grad()
def add_snapshot(total: MutableMapping[str, Tensor], weights: Mapping[str, Tensor]) -> None:
    """Add weights to their running sum, in place; an empty sum starts with them.

    Args:
        total: Sum by name; changed. In float32, or float64 where the weights are.
        weights: Weights by name, any shapes.

    >>> total = {}
    >>> for value in (1.0, 2.0):
    ...     add_snapshot(total, {"weight": torch.tensor([value])})
    >>> total["weight"]
    tensor([3.])
    """
    for name, weight in weights.items():
        if name in total:
            total[name].add_(weight)
        else:
            total[name] = weight.detach().to(torch.promote_types(weight.dtype, torch.float32), copy=True)


@torch.no_grad()
def update_moving_average(average: MutableMapping[str, Tensor], weights: Mapping[str, Tensor], decay: float) -> None:
    """Set ``average = decay * average + (1 - decay) * weights`` in place; an empty average starts as the weights.

    Args:
        average: Average by name; changed. In float64, on MPS in float32.
        weights: Weights by name, any shapes.
        decay: What remains of the average, in (0, 1).

    >>> average = {}
    >>> for value in (0.0, 1.0):
    ...     update_moving_average(average, {"weight": torch.tensor([value])}, decay=0.75)
    >>> average["weight"]
    tensor([0.2500], dtype=torch.float64)
    """
    for name, weight in weights.items():
        if name in average:
            average[name].mul_(decay).add_(weight, alpha=1 - decay)
        else:
            dtype = torch.float32 if weight.device.type == "mps" else torch.float64
            average[name] = weight.detach().to(dtype, copy=True)


@contextlib.contextmanager
def swapped_in(parameters: Iterable[Tensor], others: Iterable[Tensor]) -> Iterator[None]:
    """Let parameters have other values inside the block; afterwards, also after an error, each bit is as before.

    The values are copied into the same memory, which optimizers, DDP and compiled graphs hold on to.

    Args:
        parameters: What to change.
        others: Their values inside the block, in the same order; asked for one at a time, each before its parameter
            is changed.

    >>> weight = nn.Parameter(torch.zeros(2))
    >>> with swapped_in([weight], [torch.ones(2)]):
    ...     print(weight.tolist())
    [1.0, 1.0]
    >>> weight.tolist()
    [0.0, 0.0]
    """
    parameters = list(parameters)
    own = [parameter.detach().clone() for parameter in parameters]
    try:
        with torch.no_grad():
            for parameter, other in zip(parameters, others, strict=True):
                parameter.copy_(other)
        yield
    finally:
        with torch.no_grad():
            for parameter, values in zip(parameters, own, strict=True):
                parameter.copy_(values)


def is_step(step: int | float) -> bool:
    """Return whether a number counts optimizer steps, where others are fractions of a run."""
    return isinstance(step, int) and step >= 1
