"""MkDocs hook: pages from files that stand elsewhere in the repository, and the links to them.

The Markdown pages link to those files as GitHub needs it (``../benchmarks/README.md``); on the site they are pages.
"""

import ast
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parent.parent.parent
PAGES = {
    "benchmarks/README.md": "benchmarks.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}


def examples_page() -> str:
    """Return all scripts of ``examples/``, each under its own heading with the first line of its docstring."""
    parts = [
        "---\nhide: [navigation]\n---\n",
        "# Examples\n\nEach is a script of its own, to start from: run it as it is, on docstrings and all-MiniLM-L6-v2 "
        "(of the extra `[demo]`), offline; then change it.\n",
    ]
    for path in sorted((ROOT / "examples").glob("*.py")):
        code = path.read_text(encoding="utf-8")
        summary = (ast.get_docstring(ast.parse(code)) or "").partition("\n")[0]
        figure = "![Docstrings of five packages as points](images/clusters.png)\n\n" * (path.stem == "clustering_plot")
        parts.append(f"## {path.stem}\n\n{summary}\n\n{figure}```python\n{code}```\n")
    return "\n".join(parts)


def on_files(files: Files, *, config: Any) -> Files:
    """Add the pages."""
    contents = {page: (ROOT / path).read_text(encoding="utf-8") for path, page in PAGES.items()}
    for page, content in {**contents, "examples.md": examples_page()}.items():
        files.append(File.generated(config, page, content=content))
    return files


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Files) -> str:
    """Point links at the pages."""
    for path, target in PAGES.items():
        markdown = markdown.replace(f"](../{path}", f"]({target}")
    return re.sub(r"\]\(\.\./examples/(\w+)\.py\)", r"](examples.md#\1)", markdown)
