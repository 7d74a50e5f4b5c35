"""What turns docstrings and Markdown pages into the site; needs the extra [docs]."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

griffe = pytest.importorskip("griffe")
markdown = pytest.importorskip("markdown")
for needed in ("mkdocs", "latex2mathml"):
    pytest.importorskip(needed)

BUILDING = Path(__file__).parent.parent / "docs" / "building"


def building(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, BUILDING / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def as_html(page: str) -> str:
    converted = building("equations").on_page_markdown(page, page=None, config=None, files=None)
    return markdown.markdown(converted, extensions=["md_in_html", "tables"])


def test_an_equation_at_the_beginning_of_a_line_stays_in_its_paragraph() -> None:
    html = as_html("The first\n$`d`$ columns of\n$`W`$.\n")
    assert html.count("<p>") == 1
    assert html.count("<mi>") == 2


def test_an_equation_block_becomes_mathml_and_other_code_does_not() -> None:
    html = as_html("```math\n\\frac{a}{b}\n```\n\nNot `$x$`.\n")
    assert "<mfrac><mrow><mi>a</mi></mrow><mrow><mi>b</mi></mrow></mfrac>" in html.replace("\n", "").replace(" ", "")
    assert "<code>$x$</code>" in html


def test_roles_become_links_to_where_names_are_defined() -> None:
    markup = building("docstring_markup")
    files = {"losses.py": "from tiny_tiles.rows import tile\n", "rows.py": "def tile(): ...\n"}
    with griffe.temporary_visited_package("tiny_tiles", files) as package:
        link = markup.with_links
        assert link(":func:`tile`", package["losses"]) == (
            '<autoref optional identifier="tiny_tiles.rows.tile"><code>tile</code></autoref>'
        )
        assert 'identifier="torch.load"><code>load<' in link(":func:`~torch.load`", package["losses"])


def test_doctests_and_indented_blocks_become_code() -> None:
    text = "Double.\n\n>>> double(2)\n4\n\nExample::\n\n    double(3)\n\nThe end."
    assert building("docstring_markup").with_code_blocks(text) == (
        "Double.\n\n```pycon\n>>> double(2)\n4\n```\n\nExample:\n\n```python\ndouble(3)\n```\n\nThe end."
    )


def test_links_to_files_outside_the_pages_lead_to_their_pages() -> None:
    hook = building("outside_pages")
    page = "[a](../benchmarks/README.md) [b](../examples/custom_task.py) [c](data.md#long-texts)"
    converted = hook.on_page_markdown(page, page=None, config=None, files=None)
    assert converted == "[a](benchmarks.md) [b](examples.md#custom_task) [c](data.md#long-texts)"
    assert "## custom_task\n\nAn evaluation task of your own" in hook.examples_page()
