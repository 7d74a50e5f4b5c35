"""MkDocs hook: equations, which GitHub draws from ```` ```math ```` blocks and ``$`x`$``, become MathML.

Browsers draw MathML themselves, so that a page needs no script.
"""

import re
from typing import Any

from latex2mathml.converter import convert

_BLOCK = re.compile(r"^```math\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_INLINE = re.compile(r"\$`([^`\n]+)`\$")


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Any) -> str:
    """Convert the equations of a page."""
    markdown = _BLOCK.sub(lambda found: f"<div>{convert(found[1].strip(), display='block')}</div>", markdown)
    # In a span, as Markdown takes a line that begins with <math> for a block of its own
    return _INLINE.sub(lambda found: f"<span>{convert(found[1], display='inline')}</span>", markdown)
