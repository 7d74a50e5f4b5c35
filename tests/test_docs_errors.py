"""The errors that the docs quote are those that are raised."""

import ast
import functools
import re

import pytest

from tests.doc_pages import ROOT


@functools.cache
def message_patterns() -> list[re.Pattern[str]]:
    """Every sentence in the package's code that could be an error, with its f-string fields open."""
    patterns = []
    for path in (ROOT / "lightning_jv5").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr | ast.Constant):
                parts = node.values if isinstance(node, ast.JoinedStr) else [node]
                texts = [str(part.value) if isinstance(part, ast.Constant) else None for part in parts]
                if sum(len(text) for text in texts if text is not None) >= 25:
                    patterns.append(re.compile("".join(".*" if text is None else re.escape(text) for text in texts)))
    return patterns


@pytest.mark.parametrize("message", re.findall(r"^> ``(.+)``$", (ROOT / "docs" / "faq.md").read_text(), re.MULTILINE))
def test_an_error_in_the_docs_is_still_raised(message: str) -> None:
    assert any(pattern.fullmatch(message) for pattern in message_patterns()), message
