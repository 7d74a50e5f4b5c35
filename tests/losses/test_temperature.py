import pytest
import torch

from lightning_jv5.losses import LearnableTemperature


def test_it_starts_where_it_is_told_and_has_the_gradient_of_an_exponential() -> None:
    temperature = LearnableTemperature(0.03)
    value = temperature.at(0)
    assert value.item() == pytest.approx(0.03)
    value.backward()
    assert temperature.log_temperature.grad == pytest.approx(0.03)


@pytest.mark.parametrize(("direction", "bound"), [(1.0, 0.005), (-1.0, 0.1)])
def test_it_stays_within_its_bounds_and_comes_back(direction: float, bound: float) -> None:
    temperature = LearnableTemperature(0.02)
    optimizer = torch.optim.SGD(temperature.parameters(), lr=1000.0)
    for _ in range(5):
        optimizer.zero_grad()
        (direction * temperature.at(0)).backward()
        optimizer.step()
    assert temperature.at(0).item() == pytest.approx(bound)
    optimizer.zero_grad()
    (-direction * temperature.at(0)).backward()
    optimizer.step()
    assert temperature.at(0).item() != pytest.approx(bound)  # it did not get stuck out there


@pytest.mark.parametrize("bounds", [(0.02, 0.0, 0.1), (0.2, 0.005, 0.1), (0.001, 0.005, 0.1)])
def test_impossible_bounds_are_refused(bounds: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match="need 0 < lowest <= initial <= highest"):
        LearnableTemperature(*bounds)
