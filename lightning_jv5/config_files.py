"""Configs by name: in the current folder first, then among those that come with the package."""

import difflib
from pathlib import Path

# In a wheel the configs lie inside the package, in a checkout beside it
_PACKAGED = Path(__file__).parent / "configs"
_CHECKOUT = Path(__file__).parent.parent / "configs"


def packaged_configs() -> Path:
    """Return the folder of the configs that come with the package."""
    return _PACKAGED if _PACKAGED.is_dir() else _CHECKOUT


def config_names(folder: Path) -> list[str]:
    """Return the names of the YAML files below a folder, as one would type them."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.yaml")) if folder.is_dir() else []


def check_keys(path: Path) -> None:
    """Refuse a config in which a key is there twice, of which YAML would silently take the last.

    Raises:
        ValueError: If there is such a key; names it and its line.
    """
    import yaml

    try:
        tree = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except (yaml.YAMLError, UnicodeDecodeError):
        return  # whoever parses it says what is wrong
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, yaml.SequenceNode):
            waiting += node.value
        if not isinstance(node, yaml.MappingNode):
            continue
        seen: dict[str, int] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if key.value in seen and key.value != "<<":
                raise ValueError(
                    f"{path}, line {line}: the key {key.value} is there already, in line {seen[key.value]}. Give one "
                    "of them another name, or remove it."
                )
            seen[key.value] = line
            waiting.append(value)


def find_config(name: str) -> Path:
    """Return the file that a config name stands for: a path as it is, else the name in the packaged configs.

    Raises:
        ValueError: If there is no such file; lists those that exist.
    """
    for path in (Path(name), packaged_configs() / name):
        if path.is_file():
            return path
    known = config_names(packaged_configs())
    here = sorted(path.name for path in Path.cwd().glob("*.yaml"))
    nearest = difflib.get_close_matches(name, [*known, *here], n=1)
    hint = f" Did you mean {nearest[0]}?" if nearest else ""
    raise ValueError(
        f"no config {name}.{hint} "
        f"In this folder: {', '.join(here) or 'none'}; with the package: {', '.join(known) or 'none'}."
    )
