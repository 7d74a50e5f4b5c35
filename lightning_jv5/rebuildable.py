"""Parts that remember how they were built, so that a checkpoint can build them again from plain data."""

import dataclasses
import functools
import importlib
import inspect
from collections.abc import Callable, Mapping
from pathlib import PurePath
from typing import Any, TypeVar

Plain = None | bool | int | float | str | list["Plain"] | dict[str, "Plain"]

_Init = TypeVar("_Init", bound=Callable[..., None])


class Rebuildable:
    """A part (model, loss, source, task) that keeps its constructor arguments.

    Checkpoints are read with ``weights_only=True``, so they may hold neither modules nor dataclasses: they hold
    :func:`describe` of a part, which is plain data, and :func:`rebuild` makes an equal part from it. Inherit to get this;
    there is nothing to call.

    >>> class Scale(Rebuildable):
    ...     def __init__(self, factor: float = 2.0) -> None:
    ...         self.factor = factor
    >>> describe(Scale(3.0))["init_args"]
    {'factor': 3.0}
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "__init__" in cls.__dict__:
            cls.__init__ = _remembering(cls.__init__)  # type: ignore[method-assign]


def _remembering(init: _Init) -> _Init:
    signature = inspect.signature(init)

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
    if isinstance(value, functools.partial) and not value.args:
        return {"partial_path": _path(value.func), "keywords": describe(value.keywords)}
    if isinstance(value, type) or inspect.isfunction(value):
        return {"object_path": _path(value)}
    if isinstance(value, Rebuildable):
        return {"class_path": _path(type(value)), "init_args": describe(value.__dict__.get("_constructor_arguments", {}))}
    if dataclasses.is_dataclass(value):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value) if field.init}
        return {"class_path": _path(type(value)), "init_args": describe(fields)}
    raise TypeError(
        f"{value!r} does not keep its constructor arguments, so a checkpoint cannot hold it. "
        f"Let {type(value).__name__} inherit from lightning_jv5.Rebuildable."
    )


def rebuild(plain: Any) -> Any:
    """Make the value that :func:`describe` described.

    >>> rebuild(describe(functools.partial(dict, lr=0.1)))()
    {'lr': 0.1}
    """
    if isinstance(plain, Mapping):
        if plain.keys() == {"class_path", "init_args"}:
            return _load(plain["class_path"])(**rebuild(plain["init_args"]))
        if plain.keys() == {"partial_path", "keywords"}:
            return functools.partial(_load(plain["partial_path"]), **rebuild(plain["keywords"]))
        if plain.keys() == {"object_path"}:
            return _load(plain["object_path"])
        return {key: rebuild(item) for key, item in plain.items()}
    if isinstance(plain, list):
        return [rebuild(item) for item in plain]
    return plain


def _path(thing: Any) -> str:
    path = f"{thing.__module__}.{thing.__qualname__}"
    if "<" in path:
        raise TypeError(
            f"{path} has no importable name, so a checkpoint cannot hold it. Define it at the top level of a module."
        )
    return path


def _load(path: str) -> Any:
    """Import ``package.module.Class`` or ``package.module.Class.Inner``."""
    parts = path.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        try:
            module = importlib.import_module(".".join(parts[:cut]))
        except ModuleNotFoundError:
            continue
        return functools.reduce(getattr, parts[cut:], module)
    raise ModuleNotFoundError(f"Cannot import {path!r}: no such module. Is the package that defined it installed?")
