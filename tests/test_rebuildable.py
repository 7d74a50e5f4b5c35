import functools
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_jv5.losses import EmbeddingDistillation, Matryoshka, Objective, Term
from lightning_jv5.models import Projection
from lightning_jv5.rebuildable import Rebuildable, constructor_arguments, describe, rebuild


class Scale(Rebuildable):
    def __init__(self, factor: float = 2.0, *, names: tuple[str, ...] = ()) -> None:
        self.factor, self.names = factor, names


class NamedScale(Scale):
    """Passes on what it does not know."""

    def __init__(self, label: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.label = label


class PassingScale(Scale):
    """Passes on what it does not know, by position too."""

    def __init__(self, label: str, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.label = label


class SameScale(Scale):
    """Has no constructor of its own."""


def test_nested_parts_are_rebuilt_from_plain_data() -> None:
    objective = Objective(
        {
            "distill": Term(
                Matryoshka(EmbeddingDistillation(Projection(4, 3, trainable=False), roles=["query"]), dims=[4, 2]),
                weight=2.0,
            )
        }
    )
    plain = json.loads(json.dumps(describe(objective)))
    again = rebuild(plain)
    assert describe(again) == plain
    assert type(again) is Objective
    assert {name: weight.at(0) for name, weight in again.weights.items()} == {"distill": 2.0}
    matryoshka = again.terms["distill"]
    assert (matryoshka.dims, matryoshka.loss.roles) == ((4, 2), ("query",))
    assert not matryoshka.loss.projection.weight.requires_grad
    again.load_state_dict(objective.state_dict())


def test_a_dataclass_is_described_by_its_fields() -> None:
    term = Term(EmbeddingDistillation(), weight=3.0)
    again = rebuild(describe(term))
    assert isinstance(again, Term)
    assert (type(again.loss), again.weight) == (EmbeddingDistillation, 3.0)


def test_a_subclass_that_passes_arguments_on_keeps_them_all() -> None:
    part = NamedScale("wide", factor=3.0, names=("a", "b"))
    assert constructor_arguments(part) == {"label": "wide", "factor": 3.0, "names": ("a", "b")}
    again = rebuild(describe(part))
    assert (type(again), again.label, again.factor, tuple(again.names)) == (NamedScale, "wide", 3.0, ("a", "b"))


def test_arguments_that_are_passed_on_by_position_get_their_names() -> None:
    part = PassingScale("wide", 3.0, names=("a",))
    assert constructor_arguments(part) == {"label": "wide", "factor": 3.0, "names": ("a",)}
    again = rebuild(describe(part))
    assert (again.label, again.factor, tuple(again.names)) == ("wide", 3.0, ("a",))
    assert constructor_arguments(PassingScale("wide")) == {"label": "wide"}


def test_a_subclass_without_a_constructor_is_rebuilt_as_itself() -> None:
    again = rebuild(describe(SameScale(4.0)))
    assert (type(again), again.factor) == (SameScale, 4.0)


def test_defaults_are_not_written_down() -> None:
    assert describe(Scale()) == {"class_path": f"{__name__}.Scale", "init_args": {}}


def test_the_constructors_own_error_says_which_argument_is_wrong() -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'facto'"):
        Scale(facto=1.0)


def test_paths_become_text() -> None:
    assert describe({"path": Path("a") / "b", "sizes": (1, None, True)}) == {"path": "a/b", "sizes": [1, None, True]}


@pytest.mark.parametrize("value", [lambda: None, functools.partial(Scale, 1.0), torch.nn.Linear(1, 1), object()])
def test_what_cannot_be_written_down_is_named(value: Any) -> None:
    name = type(value).__name__
    with pytest.raises(TypeError, match=f"does not keep its constructor arguments.* Let {name} inherit from"):
        describe({"deep": [value]})


def test_a_class_without_an_importable_name_is_refused() -> None:
    class Local(Rebuildable):
        pass

    with pytest.raises(TypeError, match="Local has no importable name"):
        describe(Local())


@pytest.mark.parametrize(
    "path",
    [
        "subprocess.Popen",
        "os.system",
        "builtins.eval",
        "wave.Wave_read",
        "lightning_jv5.rebuildable.describe",
        "lightning_jv5.nowhere.Loss",
        "no_dots",
    ],
)
def test_only_rebuildable_classes_of_imported_modules_are_called(path: str) -> None:
    with pytest.raises(ValueError, match=f"asks for '{path}', which is not a lightning_jv5.Rebuildable class"):
        rebuild({"class_path": path, "init_args": {}})


def test_a_class_inside_a_class_is_found() -> None:
    assert isinstance(rebuild({"class_path": f"{__name__}.Outer.Inner", "init_args": {"factor": 1.0}}), Outer.Inner)


class Outer:
    class Inner(Scale):
        pass
