"""What divides cosines before a softmax: a number, a schedule, or a parameter."""

import math

import torch
from torch import Tensor, nn

from lightning_jv5.losses.schedule import Schedule, as_schedule
from lightning_jv5.rebuildable import Rebuildable


class LearnableTemperature(Rebuildable, nn.Module):
    """A temperature ``exp(s)`` with a trained ``s``, kept within bounds.

    Before each step ``s`` is moved back to the nearest bound if the optimizer has carried it beyond, so that the
    gradient can always lead it inside again. It has no dimension, so no weight decay, and is saved with the module.

    Args:
        initial: Where it starts (unitless).
        lowest: Lower bound.
        highest: Upper bound.

    Raises:
        ValueError: Unless ``0 < lowest <= initial <= highest``.

    >>> round(LearnableTemperature(0.05).at(0).item(), 4)
    0.05
    """

    def __init__(self, initial: float = 0.02, lowest: float = 0.005, highest: float = 0.1) -> None:
        super().__init__()
        if not 0 < lowest <= initial <= highest < math.inf:
            raise ValueError(
                f"Got a temperature of {initial} between {lowest} and {highest}; need 0 < lowest <= initial <= highest."
            )
        self.lowest, self.highest = lowest, highest
        self.log_temperature = nn.Parameter(torch.tensor(math.log(initial)))

    def at(self, step: int) -> Tensor:
        """Return the temperature, a scalar with a gradient."""
        with torch.no_grad():
            self.log_temperature.clamp_(math.log(self.lowest), math.log(self.highest))
        return self.log_temperature.exp()

    def watched(self, name: str, step: int) -> dict[str, Tensor | float]:
        """Return the temperature."""
        return {name: self.log_temperature.detach().exp()}


def temperature_source(temperature: float | Schedule | LearnableTemperature) -> Schedule | LearnableTemperature:
    """Return what gives a temperature for each step.

    Raises:
        ValueError: If it is not positive, or begins or ends so.
    """
    if isinstance(temperature, LearnableTemperature):
        return temperature
    if isinstance(temperature, Schedule):
        for step in (0, 10**9):  # where it begins, and where it ends
            check_temperature(temperature.at(step))
        return temperature
    check_temperature(temperature)
    return as_schedule(temperature)


def check_temperature(temperature: float | Tensor) -> None:
    """Refuse a temperature that is not a positive number.

    Raises:
        ValueError: If it is not; a tensor on a GPU is not looked at, as that would wait for the device.
    """
    if isinstance(temperature, Tensor):
        if temperature.numel() != 1:
            raise ValueError(f"Got a temperature of shape {tuple(temperature.shape)}; need a single number.")
        if temperature.device.type != "cpu":
            return
        temperature = float(temperature.detach())
    if not 0 < temperature < math.inf:
        raise ValueError(f"Got temperature {temperature}; need a positive number, such as 0.02.")
