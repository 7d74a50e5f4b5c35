"""Commands that are one function: its arguments are the options and the keys of the config, its docstring the help."""

import importlib
import os
import sys
import typing
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from jsonargparse import ArgumentParser

from lightning_jv5.cli import fail
from lightning_jv5.cli_errors import OneLineErrors, innermost

# Each returns something with a summary, which is printed
FUNCTIONS = {
    "assemble": "lightning_jv5.export.assembly:assemble",
    "convert": "lightning_jv5.export.convert:convert",
    "embed": "lightning_jv5.data.embed_columns:embed_columns",
    "export": "lightning_jv5.export.stage:export",
    "mine": "lightning_jv5.data.mining:mine",
    "onnx": "lightning_jv5.export.onnx:export_onnx",
    "push": "lightning_jv5.export.push:push",
    "recipe": "lightning_jv5.recipe:recipe",
    "search": "lightning_jv5.search.command:search",
}


class HasSummary(Protocol):
    """What a command made."""

    def summary(self) -> str:
        """Say in a few lines what was made."""


def run(command: str, words: Sequence[str], configs: Sequence[Path]) -> None:
    """Parse the arguments of a command's function, call it, and print what it made.

    Args:
        command: One of :data:`FUNCTIONS`.
        words: The words after it, config names resolved to files.
        configs: Those files, for messages.

    Raises:
        SystemExit: With status 2 after a message of one line if an argument is wrong.
    """
    module, _, name = FUNCTIONS[command].partition(":")
    function: Callable[..., HasSummary] = getattr(importlib.import_module(module), name)
    words = list(
        _joined(words, switches={key for key, kind in typing.get_type_hints(function).items() if kind is bool})
    )
    settings: dict[str, Any] = {
        "words": words,
        "configs": list(configs),
        "keys": staticmethod(lambda: {**typing.get_type_hints(function), "config": None}),
    }
    parser = type("Parser", (OneLineErrors, ArgumentParser), settings)(
        prog=f"lightning_jv5 {command}",
        description=(function.__doc__ or "").partition("\n")[0],
        allow_abbrev=False,  # --dept is a slip, not short for --depth
    )
    parser.add_argument("--config", action="config", help="YAML file with these options as its keys.")
    parser.add_function_arguments(function, fail_untyped=False)
    parsed = parser.parse_args(words)
    try:
        built = parser.instantiate(parsed)
        arguments = {key: built[key] for key in typing.get_type_hints(function) if key in built}
        made = function(**arguments)
    except ValueError as error:
        fail(str(innermost(error)))
    if os.environ.get("RANK", "0") == "0":
        print(made.summary())
        sys.stdout.flush()


def _joined(words: Sequence[str], switches: Collection[str]) -> Iterator[str]:
    """Write ``--key value`` as ``--key=value``, so that messages find what was given; a switch alone is true."""
    rest = list(words)
    while rest:
        word = rest.pop(0)
        takes_value = word.startswith("--") and "=" not in word and word not in {"--help", "--print_config"}
        if takes_value and rest and not rest[0].startswith("--"):
            yield f"{word}={rest.pop(0)}"
        else:
            yield f"{word}=true" if word.removeprefix("--") in switches else word
