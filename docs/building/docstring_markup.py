"""Griffe extension: docstrings, which help() and editors show as they are, as Markdown for the site.

Roles such as ``:func:`info_nce` `` become links, examples that are doctests become code blocks, and so does what
follows ``::``.
"""

import re
import textwrap
from typing import Any

import griffe

_ROLE = re.compile(r":(?:func|class|meth|mod|attr|data|obj):`(~?)([\w.]+)`")


def with_links(text: str, scope: griffe.Object) -> str:
    """Turn roles into references, which become links where the target has a place on the site."""

    def link(found: re.Match[str]) -> str:
        short, name = found.groups()
        shown = name.rpartition(".")[2] if short else name
        try:
            target = name if name.startswith("lightning_jv5.") else scope.resolve(name)
        except griffe.NameResolutionError:
            target = name
        return f'<autoref optional identifier="{target}"><code>{shown}</code></autoref>'

    return _ROLE.sub(link, text)


def with_code_blocks(text: str) -> str:
    """Fence doctests, each up to the next empty line, and indented blocks after ``::``."""
    lines, result = text.splitlines(), []
    while lines:
        line = lines.pop(0)
        indent = line[: len(line) - len(line.lstrip())]
        if line.lstrip().startswith(">>> "):
            block = [line]
            while lines and lines[0].strip():
                block.append(lines.pop(0))
            result += [f"{indent}```pycon", *block, f"{indent}```"]
        elif line.endswith("::"):
            block = []
            while lines and (not lines[0].strip() or lines[0].startswith(f"{indent} ")):
                block.append(lines.pop(0))
            code = textwrap.indent(textwrap.dedent("\n".join(block)).strip("\n"), indent)
            result += [line[:-1], "", f"{indent}```python", code, f"{indent}```", ""]
        else:
            result.append(line)
    return "\n".join(result)


class DocstringMarkup(griffe.Extension):
    """Rewrites every docstring of the package once it is loaded."""

    def on_package(self, *, pkg: griffe.Module, loader: Any, **kwargs: Any) -> None:
        """Rewrite them."""
        _rewrite(pkg)


def _rewrite(scope: griffe.Object) -> None:
    if scope.docstring is not None:
        scope.docstring.value = with_code_blocks(with_links(scope.docstring.value, scope))
    for member in scope.members.values():
        if not member.is_alias:
            _rewrite(member)
