"""Markdown of any text: what it says, never what it would format."""

import re
from collections.abc import Sequence

_MARKUP = re.compile(r"([\\`*_{}\[\]<>#|~])")


def escaped(text: str) -> str:
    r"""Return one line of Markdown that shows a text as it is.

    >>> print(escaped("a_b | <c>"))
    a\_b \| \<c\>
    """
    return _MARKUP.sub(r"\\\1", " ".join(text.split()))


def code(text: str) -> str:
    r"""Return a code span of one line, fit for a table's cell.

    >>> print(code("a|b"), code("a`b"))
    `a\|b` ``a`b``
    """
    ticks = "`" * (_longest_run(text) + 1)
    space = " " if text.startswith("`") or text.endswith("`") else ""
    one_line = " ".join(text.splitlines()).replace("|", "\\|")
    return f"{ticks}{space}{one_line}{space}{ticks}"


def fenced(text: str, language: str) -> str:
    """Return a block of code, whose fence no line of the text can close."""
    fence = "`" * max(3, _longest_run(text) + 1)
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table of cells that are Markdown.

    >>> print(table(["a", "b"], [["1", "2"]]))
    | a | b |
    |---|---|
    | 1 | 2 |
    """
    lines = [header, *rows]
    shown = [f"| {' | '.join(line)} |" for line in lines]
    return "\n".join([shown[0], "|" + "---|" * len(header), *shown[1:]])


def _longest_run(text: str) -> int:
    return max((len(run) for run in re.findall(r"`+", text)), default=0)
