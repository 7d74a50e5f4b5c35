"""Parts that remember how they were built, so that a checkpoint can build them again from plain data."""

import dataclasses
import functools
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Mapping
from pathlib import PurePath
from typing import Any, TypeVar

Plain = None | bool | int | float | str | list["Plain"] | dict[str, "Plain"]

_Init = TypeVar("_Init", bound=Callable[..., None])


class Rebuildable:
    """A part (model, loss, source, task) that keeps its constructor arguments.

    Checkpoints are read with ``weights_only=True``, so they may hold neither modules nor dataclasses: they hold
    :func:`describe` of a part, which is plain data, and :func:`rebuild` makes an equal part from it. Inherit to get
    this; there is nothing to call.

    >>> class Scale(Rebuildable):
    ...     def __init__(self, factor: float = 2.0) -> None:
    ...         self.factor = factor
    >>> describe(Scale(3.0))["init_args"]
    {'factor': 3.0}
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "__init__" in cls.__dict__:
            cls.__init__ = _remembering(cls.__init__, inherited=super(cls, cls).__init__)  # type: ignore[method-assign]


def _remembering(init: _Init, inherited: Callable[..., None]) -> _Init:
    signature = inspect.signature(init)
    inherited_names = list(inspect.signature(inherited).parameters)[1:]  # what ``*args`` is passed on to

    @functools.wraps(init)
    def remembering_init(self: Any, *args: Any, **kwargs: Any) -> None:
        if "_constructor_arguments" not in self.__dict__:  # the outermost __init__ of the class hierarchy comes first
            try:
                bound = signature.bind(self, *args, **kwargs)
            except TypeError:
                pass  # a wrong argument: the constructor's own error says which
            else:
                arguments = dict(list(bound.arguments.items())[1:])
                for name, parameter in signature.parameters.items():
                    if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
                        arguments.update(zip(inherited_names, arguments.pop(name, ()), strict=False))
                    if parameter.kind is inspect.Parameter.VAR_KEYWORD:
                        arguments.update(arguments.pop(name, {}))
                self.__dict__["_constructor_arguments"] = arguments
        init(self, *args, **kwargs)

    return remembering_init  # type: ignore[return-value]


def describe(value: Any) -> Plain:
    """Return ``value`` as plain data (strings, numbers, lists, dicts) that :func:`rebuild` turns into an equal value.

    Raises:
        TypeError: If ``value`` holds something that cannot be written down, such as a lambda or an open file.

    >>> describe({"weights": (1, 2)})
    {'weights': [1, 2]}
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): describe(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [describe(item) for item in value]
    if isinstance(value, Rebuildable):
        path = f"{type(value).__module__}.{type(value).__qualname__}"
        if "<locals>" in path:
            raise TypeError(
                f"{path} has no importable name, so a checkpoint cannot hold it. Define it at the top of a module."
            )
        return {"class_path": path, "init_args": describe(constructor_arguments(value))}
    raise TypeError(
        f"{value!r} does not keep its constructor arguments, so a checkpoint cannot hold it. "
        f"Let {type(value).__name__} inherit from lightning_jv5.Rebuildable."
    )


def constructor_arguments(part: Rebuildable) -> dict[str, Any]:
    """Return the arguments that ``part`` was built with, by name; those left at their defaults are not listed."""
    if dataclasses.is_dataclass(part):
        return {field.name: getattr(part, field.name) for field in dataclasses.fields(part) if field.init}
    return dict(part.__dict__.get("_constructor_arguments", {}))


def rebuild(plain: Any) -> Any:
    """Make the value that :func:`describe` described.

    A checkpoint may come from anywhere, so only :class:`Rebuildable` classes are called, and only from this package or
    from modules that the program has imported itself.

    Raises:
        ValueError: If a class is not such a class, or its module has not been imported.
    """
    if isinstance(plain, Mapping):
        if plain.keys() == {"class_path", "init_args"}:
            return _trusted_class(plain["class_path"])(**rebuild(plain["init_args"]))
        return {key: rebuild(item) for key, item in plain.items()}
    if isinstance(plain, list):
        return [rebuild(item) for item in plain]
    return plain


def _trusted_class(path: str) -> type[Any]:
    """Return the class at ``package.module.Class`` or ``package.module.Class.Inner``."""
    parts = path.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        name = ".".join(parts[:cut])
        if parts[0] == __package__ and name not in sys.modules and importlib.util.find_spec(name) is not None:
            importlib.import_module(name)
        if name in sys.modules:
            found: Any = sys.modules[name]
            for part in parts[cut:]:
                found = getattr(found, part, None)
            if isinstance(found, type) and issubclass(found, Rebuildable):
                return found
            break
    raise ValueError(
        f"A checkpoint asks for {path!r}, which is not a lightning_jv5.Rebuildable class of an imported module. "
        "If you trust the checkpoint, import the module that defines the class first."
    )
