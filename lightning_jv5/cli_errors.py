"""From jsonargparse's pages of usage to one line: which key, in which file, and what it should have been."""

import difflib
import importlib
import inspect
import re
import traceback
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import yaml

from lightning_jv5.cli import fail

_NOT_ACCEPTED = re.compile(r"(?:Option|option|Unrecognized arguments:|unrecognized arguments:) '?-*([\w.+-]+)")
_KEY = re.compile(r'Parser key "([^"]+)"')
_NO_ATTRIBUTE = re.compile(r"module '([\w.]+)' has no attribute '(\w+)'")
_NO_MODULE = re.compile(r"No module named '([\w.]+)'")
_CLASS = re.compile(r"(\w+\.)+[A-Z]\w*")


@dataclass(frozen=True)
class Place:
    """Where a key stands.

    Attributes:
        path: The key and those above it, without the ``init_args`` between them.
        origin: The file and line, or the word of the command line.
        value: What was given.
        classes: ``class_path`` by depth in ``path``, where the file names one.
    """

    path: tuple[str, ...]
    origin: str
    value: Any
    classes: Mapping[int, str]


def innermost(error: BaseException) -> BaseException:
    """Return the error that jsonargparse wrapped: the first along the causes that somebody else raised.

    Where a value may be of several types, jsonargparse keeps the cause of the first only, and of the others the text.
    """
    outermost = error
    while error.__cause__ is not None and _raised_by_jsonargparse(error):
        error = error.__cause__
    if _raised_by_jsonargparse(error) and (ours := re.search(r"^\s*- (Got .*)$", str(outermost), re.MULTILINE)):
        return ValueError(ours[1])
    return error


def _raised_by_jsonargparse(error: BaseException) -> bool:
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and "jsonargparse" in Path(frames[-1].filename).parts


def training_keys() -> dict[str, Any]:
    """Return the keys at the top of a config of ``fit``, and their types where they have keys themselves."""
    from lightning.pytorch import Trainer

    from lightning_jv5.datamodule import EmbeddingDataModule
    from lightning_jv5.module import EmbeddingModule

    typed = {"model": EmbeddingModule, "data": EmbeddingDataModule, "trainer": Trainer}
    return {**typed, **dict.fromkeys(["seed_everything", "name", "from", "runs", "ckpt_path", "config"])}


class OneLineErrors:
    """Comes before a parser's class: its errors are one line, with the key, the file and the nearest valid name."""

    configs: Sequence[Path] = ()
    words: Sequence[str] = ()
    keys: Callable[[], Mapping[str, Any]] = staticmethod(training_keys)
    exit_on_error: bool

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Say what is wrong in one line and exit with status 2."""
        if not self.exit_on_error:  # the parser of a nested class: whoever asked it may try another type
            super().error(message, ex)  # type: ignore[misc]
        fail(explain(message, ex, self.words, self.configs, self.keys))


def explain(
    message: str,
    error: BaseException | None,
    words: Sequence[str],
    configs: Sequence[Path],
    keys_at_top: Callable[[], Mapping[str, Any]] = training_keys,
) -> str:
    """Return one line for what jsonargparse could not parse.

    Args:
        message: Its own message.
        error: The exception behind it, if any.
        words: The command line after the command.
        configs: Config files, in the order in which they are merged.
        keys_at_top: The keys at the top of a config and their types.
    """
    if error is not None and isinstance(error.__cause__, yaml.YAMLError):
        return _broken_yaml(configs) or message
    keys, leaf = _deepest(message)
    if refused := [found[1] for found in _NOT_ACCEPTED.finditer(leaf)]:
        key = min(refused, key=lambda key: key.count("."))  # of the types, that which accepted what is above it
        keys = [*keys, *key.split(".")]
        place = _find(keys, words, configs)
        refused_parts = len(_without_init_args(key.split(".")))
        if place is None:
            return f"no such key: {key}. `--help` lists the keys."
        return _unknown_key(place, keys_at_top(), refused_parts)
    place = _find(keys, words, configs) if keys else None
    where = _where(place) if place else f"{'.'.join(keys)}: " if keys else ""
    if wrong_class := _wrong_class(leaf):
        return f"{where}{wrong_class}"
    if wanted := _wanted(leaf):
        given = place.value if place else leaf.rpartition(": ")[2]
        return f"{where}expected {wanted}, got {given!r}"
    return f"{where}{leaf}"


def _deepest(message: str) -> tuple[list[str], str]:
    """Return the keys on the way to the most indented complaint of a message, and the complaint.

    jsonargparse tries every type that a value may have, and tells what each said, one inside the other: whoever got
    furthest knows best.
    """
    lines = [line for line in message.splitlines() if line.strip() and not line.lstrip().startswith("Given value")]
    if not lines:
        return [], message
    depths = [len(line) - len(line.lstrip(" -")) for line in lines]
    deepest = max(depths)
    leaves = dict.fromkeys(line.strip(" -") for line, depth in zip(lines, depths, strict=True) if depth == deepest)
    keys: list[str] = []
    depth = deepest
    for line, above in reversed(list(zip(lines, depths, strict=True))[: depths.index(deepest) + 1]):
        if (above < depth or above == deepest) and (key := _KEY.search(line)):
            keys = [*key[1].split("."), *keys]
        depth = min(depth, above)
    return keys, "\n".join(leaves)


def _where(place: Place) -> str:
    key = ".".join(place.path)
    return f"{place.origin}: " if place.origin.endswith(key) else f"{place.origin}: {key}: "


def _broken_yaml(configs: Sequence[Path]) -> str | None:
    for config in configs:
        try:
            yaml.compose(config.read_text())
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line = f", line {mark.line + 1}" if mark else ""
            return f"{config}{line}: this is not YAML: {error.problem or error.context}"
    return None


def _wrong_class(message: str) -> str | None:
    """Return what is wrong with a ``class_path``, if that is what the message is about."""
    if missing := _NO_ATTRIBUTE.search(message):
        module, name = missing.groups()
        return f"{module} has no {name}.{_did_you_mean(name, dir(importlib.import_module(module)))}"
    if missing := _NO_MODULE.search(message):
        return f"cannot import {missing[1]!r}; is it installed, or on the Python path?"
    if "Not a valid subclass of" in message or "does not correspond to a subclass of" in message:
        reason = next(line for line in message.splitlines() if "ubclass of" in line)
        return reason.removesuffix(".")
    return None


def _wanted(complaints: str) -> str:
    """Return the types that were expected, in words."""
    types = re.findall(r"Expected a (.+?)(?:\. Got value.*)?$", complaints, re.MULTILINE)
    named = (re.sub(r"<class '(?:\w+\.)*(\w+)'>", r"\1", name).removeprefix("typing.") for name in types)
    words = {"NoneType": "null"}
    return " or ".join("a class_path" if "import path" in name else words.get(name, name) for name in named)


def _unknown_key(place: Place, roots: Mapping[str, Any], refused_parts: int) -> str:
    """Return what is wrong with the first part of the path that its owner does not know, of those that were refused."""
    for depth in range(max(1, len(place.path) - refused_parts + 1), len(place.path) + 1):
        *owners, name = place.path[:depth]
        known = _valid_names(owners, place.classes, roots)
        if depth < len(place.path) and (not known or name.rstrip("+") in known):
            continue
        parent = ".".join(owners)
        nearest = difflib.get_close_matches(name, known, n=1)
        hint = (
            f"; did you mean {nearest[0]}?" if nearest else f"; there are: {', '.join(sorted(known))}" if known else ""
        )
        return f"{place.origin}: no key {name}{f' in {parent}' if parent else ''}{hint}"
    raise AssertionError("a path has at least one part")


def _did_you_mean(name: str, known: Sequence[str]) -> str:
    nearest = difflib.get_close_matches(name, known, n=1)
    return f" Did you mean {nearest[0]}?" if nearest else ""


# Where a key stands


def _find(key: Sequence[str], words: Sequence[str], configs: Sequence[Path]) -> Place | None:
    """Find a key, of which some parts may be unknown: the command line wins over files, later files over earlier."""
    wanted = tuple(part for part in key if part != "init_args")
    merged = _classes_of_files(configs) | _classes_of_words(words)
    for word in reversed(words):
        flag, _, value = word.partition("=")
        parts = _without_init_args(flag.lstrip("-").split("."))
        if flag.startswith("--") and _fits(parts, wanted):
            return Place(parts, flag, value, _at(merged, parts))
    for config in reversed(configs):
        try:
            root = yaml.compose(config.read_text())
        except yaml.YAMLError:
            continue
        for parts, line, value in _keys(root):
            if _fits(parts, wanted):
                return Place(parts, f"{config}, line {line}", value, _at(merged, parts))
    return None


def _fits(parts: Sequence[str], known: Sequence[str]) -> bool:
    """Return whether a path ends with the last known key and has the others before it, in order."""
    bare = [part.rstrip("+") for part in parts]  # `callbacks+` is how a YAML appends to `callbacks`
    above = iter(bare[:-1])
    return bare[-1] == known[-1].rstrip("+") and all(key.rstrip("+") in above for key in known[:-1])


def _without_init_args(parts: Sequence[str]) -> tuple[str, ...]:
    return tuple(part for part in parts if part != "init_args")


def _keys(node: Any, above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], int, Any]]:
    """Yield path, line and value of every key; the items of a list are numbered."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            path = above if key.value == "init_args" else (*above, str(key.value))
            if key.value not in {"init_args", "class_path"}:
                yield path, key.start_mark.line + 1, _plain(value)
            elif key.value == "class_path":
                yield (*above, "class_path"), key.start_mark.line + 1, _plain(value)
            yield from _keys(value, path)
    elif isinstance(node, yaml.SequenceNode):
        for number, item in enumerate(node.value):
            yield from _keys(item, (*above, str(number)))


def _plain(node: Any) -> Any:
    return yaml.safe_load(yaml.serialize(node))


def _classes_of_files(configs: Sequence[Path]) -> dict[tuple[str, ...], str]:
    classes = {}
    for config in configs:
        try:
            root = yaml.compose(config.read_text())
        except yaml.YAMLError:
            continue
        for parts, _, value in _keys(root):
            if parts[-1] == "class_path":
                classes[tuple(part.rstrip("+") for part in parts[:-1])] = str(value)
    return classes


def _classes_of_words(words: Sequence[str]) -> dict[tuple[str, ...], str]:
    """Return the classes that ``--key=package.Class`` and ``--key.class_path=package.Class`` name."""
    named = [(flag, value) for flag, _, value in (word.partition("=") for word in words) if _CLASS.fullmatch(value)]
    return {_without_init_args(flag.removesuffix(".class_path").lstrip("-").split(".")): name for flag, name in named}


def _at(classes: Mapping[tuple[str, ...], str], parts: Sequence[str]) -> dict[int, str]:
    bare = tuple(part.rstrip("+") for part in parts)
    return {depth: classes[bare[:depth]] for depth in range(len(bare) + 1) if bare[:depth] in classes}


# Which names would have been valid there


def _valid_names(owners: Sequence[str], classes: Mapping[int, str], roots: Mapping[str, Any]) -> list[str]:
    """Return the names that the owner of a key takes, following types down from the root."""
    if not owners:
        return list(roots)
    owner: Any = roots.get(owners[0])
    for depth, part in enumerate(owners):
        if depth:
            owner = _type_of(owner, part.rstrip("+"))
        if depth + 1 in classes:
            named = _import(classes[depth + 1])
            # An earlier config may have named a class, where this one has a dict: data sets by name, for a source
            replaced = depth + 1 < len(owners) and owners[depth + 1].rstrip("+") not in _parameters(named)
            if not (replaced and typing.get_origin(owner) is dict):
                owner = named
    return list(_parameters(owner)) if inspect.isclass(owner) else []


def _type_of(owner: Any, name: str) -> Any:
    """Return the type that ``name`` has inside ``owner``: of a parameter, or of a dict's or list's items."""
    origin, arguments = typing.get_origin(owner), typing.get_args(owner)
    if origin in {typing.Union, types.UnionType}:
        inside = (_type_of(argument, name) for argument in arguments if argument is not type(None))
        return next((found for found in inside if found is not None), None)
    if inspect.isclass(origin) and issubclass(origin, Mapping):
        return arguments[1]
    if inspect.isclass(origin) and issubclass(origin, Sequence):
        return arguments[0]
    if not inspect.isclass(owner):
        return None
    annotation = _parameters(owner).get(name)
    candidates = [annotation, *typing.get_args(annotation)]
    classes = [found for found in candidates if inspect.isclass(found) and found.__module__ != "builtins"]
    containers = [found for found in candidates if typing.get_origin(found) in {dict, list}]
    return next(iter([*containers, *classes]), None)


def _parameters(owner: type) -> dict[str, Any]:
    """Return the constructor's parameters and their types; those behind ``**kwargs`` are the parent's."""
    found: dict[str, Any] = {}
    for parent in inspect.getmro(owner):
        if "__init__" not in vars(parent) or parent is object:
            continue
        signature = inspect.signature(parent.__init__)  # type: ignore[misc]
        try:
            hints = typing.get_type_hints(inspect.unwrap(parent.__init__))  # type: ignore[misc]
        except (NameError, TypeError):
            hints = {}
        named = [p for p in signature.parameters.values() if p.kind not in {p.VAR_POSITIONAL, p.VAR_KEYWORD}]
        found |= {p.name: hints.get(p.name) for p in named if p.name not in {"self", *found}}
        if not any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values()):
            break
    return found


def _import(path: str) -> Any:
    module, _, name = path.rpartition(".")
    for home in [module] if module else ["lightning_jv5", "lightning.pytorch.callbacks", "lightning.pytorch.loggers"]:
        try:
            return getattr(importlib.import_module(home), name)
        except (ImportError, AttributeError):
            continue
    return None
