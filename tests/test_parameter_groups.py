import pytest
from torch import nn

from lightning_jv5.parameter_groups import parameter_groups


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(3, 2)
        self.linear = nn.Linear(2, 2)
        self.norm = nn.LayerNorm(2)
        self.temperature = nn.Parameter(nn.Linear(1, 1).bias.detach()[0])


def names(module: nn.Module, learning_rates: dict[str, float] | None = None) -> dict[str, set[str]]:
    name_of = {parameter: name for name, parameter in module.named_parameters()}
    groups = parameter_groups(module.named_parameters(), learning_rates)
    return {group["name"]: {name_of[parameter] for parameter in group["params"]} for group in groups}


def test_only_matrices_decay() -> None:
    assert names(Small()) == {
        "decay": {"embedding.weight", "linear.weight"},
        "no_decay": {"linear.bias", "norm.weight", "norm.bias", "temperature"},
    }
    settings = {group["name"]: group for group in parameter_groups(Small().named_parameters())}
    assert settings["no_decay"]["weight_decay"] == 0.0
    assert "weight_decay" not in settings["decay"]  # the optimizer's own


def test_frozen_parameters_are_left_out() -> None:
    module = Small()
    module.linear.requires_grad_(False)
    assert names(module) == {
        "decay": {"embedding.weight"},
        "no_decay": {"norm.weight", "norm.bias", "temperature"},
    }


def test_the_first_pattern_that_fits_gives_the_learning_rate() -> None:
    rates = {"linear.*": 0.5, "*.bias": 0.25}
    assert names(Small(), rates) == {
        "decay": {"embedding.weight"},
        "linear.*/decay": {"linear.weight"},
        "linear.*/no_decay": {"linear.bias"},
        "no_decay": {"norm.weight", "temperature"},
        "*.bias/no_decay": {"norm.bias"},
    }
    groups = parameter_groups(Small().named_parameters(), rates)
    assert {group["name"]: group.get("lr") for group in groups} == {
        "decay": None,
        "linear.*/decay": 0.5,
        "linear.*/no_decay": 0.5,
        "no_decay": None,
        "*.bias/no_decay": 0.25,
    }
    assert [group["weight_decay"] for group in groups if group["name"].endswith("no_decay")] == [0.0, 0.0, 0.0]


def test_a_pattern_that_fits_nothing_trainable_is_refused() -> None:
    module = Small()
    module.linear.requires_grad_(False)
    for pattern in ("linear.*", "projection*"):
        with pytest.raises(ValueError, match=r"fits no trainable parameter\. Names look like"):
            parameter_groups(module.named_parameters(), {pattern: 0.1})


def test_training_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="Nothing to train: every parameter is frozen"):
        parameter_groups(Small().requires_grad_(False).named_parameters())
