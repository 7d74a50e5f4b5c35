"""What is written down of how a model was made, without where that was; so a folder may be moved and handed on."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from lightning_jv5.data.cache import write_json
from lightning_jv5.models.lora import ADAPTER_CONFIG
from lightning_jv5.models.model_folder import DESCRIPTION, OWN_MODEL, ModelFolder, read_model_folder

TRAINING_CONFIG = "training_config.yaml"


_ABSOLUTE = re.compile(r"file:/|~[\w.-]*/|/[^/\s]+/|/[\w.-]+$|[A-Za-z]:[\\/]|\\\\[^\\\s]+\\")
_OUTSIDE = re.compile(r"(?:\.\.?[\\/])*\.\.[\\/](?!\.\.?(?:[\\/]|$))[^\\/]")  # ../.. alone is an adapter's own model


def is_machine_path(text: str) -> bool:
    """Say whether a setting is a path that only this machine has: an absolute one, or one out of the model's folder.

    A prompt may begin with a slash.

    >>> [is_machine_path(text) for text in ("/home/ada/small", "../pairs.jsonl", "~/small", "file:///data/small")]
    [True, True, True, True]
    >>> [is_machine_path(text) for text in ("ada/small", "data/pairs.jsonl", "/search: ", "../..")]
    [False, False, False, False]
    """
    return any(pattern.match(text) for pattern in (_ABSOLUTE, _OUTSIDE))


def names_machine_path(text: str) -> bool:
    """Say whether a setting is a machine path, or the user's home folder stands anywhere in it."""
    return is_machine_path(text) or text != _without_home(text)


def without_machine_paths(plain: Any) -> Any:
    """Replace machine paths in plain data by their last part; all else, hub ids among it, stays.

    >>> without_machine_paths({"path": "/home/ada/pairs.jsonl", "teacher": "Qwen/Qwen3-Embedding-4B"})
    {'path': 'pairs.jsonl', 'teacher': 'Qwen/Qwen3-Embedding-4B'}
    """
    if isinstance(plain, dict):
        return {key: without_machine_paths(value) for key, value in plain.items()}
    if isinstance(plain, list):
        return [without_machine_paths(value) for value in plain]
    if not isinstance(plain, str):
        return plain
    if is_machine_path(plain):
        return re.split(r"[\\/]", plain.rstrip("\\/"))[-1]
    return _without_home(plain)


def _without_home(text: str) -> str:
    """Take the user's home folder out of a text that has it, unless that is the root, which is in every path."""
    home = str(Path.home())
    if home == Path.home().anchor:
        return text
    return re.sub(rf"(?<![\w.-]){re.escape(home)}[\\/]", "", text)


def copy_plain(source: Path, target: Path) -> None:
    """Copy a JSON or YAML file without machine paths; does nothing where there is none."""
    import yaml

    if not source.is_file():
        return
    text = source.read_text(encoding="utf-8")
    if source.suffix == ".json":
        write_json(target, without_machine_paths(json.loads(text)))
    else:
        plain = without_machine_paths(yaml.safe_load(text))
        target.write_text(yaml.safe_dump(plain, sort_keys=False, allow_unicode=True), encoding="utf-8")


def write_description(folder: Path, described: ModelFolder) -> None:
    """Write what a folder is without machine paths; an adapter is one of the model around it."""
    base = OWN_MODEL if described.kind == "adapter" else None
    relocatable = replace(described, base=base, trained=without_machine_paths(described.trained))
    write_json(folder / DESCRIPTION, relocatable.to_plain())


def forget_machine(folder: Path) -> None:
    """Take machine paths out of what a folder says of its making, and of an adapter's model, which is around it."""
    if (described := read_model_folder(folder)) is not None:
        write_description(folder, described)
    copy_plain(folder / TRAINING_CONFIG, folder / TRAINING_CONFIG)
    if (folder / ADAPTER_CONFIG).is_file():
        config = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))
        write_json(folder / ADAPTER_CONFIG, {**without_machine_paths(config), "base_model_name_or_path": None})
