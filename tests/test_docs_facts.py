"""What the docs say is so: names, links and numbers."""

import ast
import importlib
import inspect
import re
from pathlib import Path

import pytest

import lightning_jv5
from lightning_jv5.cli import COMMANDS
from tests.doc_pages import ROOT


def test_every_public_name_is_in_the_reference() -> None:
    listed = {
        name.replace(f".{name.rpartition('.')[2]}.{name.rpartition('.')[2]}", f".{name.rpartition('.')[2]}")
        for page in (ROOT / "docs" / "api").glob("*.md")
        for name in re.findall(r"^::: (\S+)$", page.read_text(), re.MULTILINE)
    }
    shown = {name.rpartition(".")[2] for name in listed}
    for package in ("losses", "data", "models", "metrics", "tasks", "callbacks", "export"):
        code = (ROOT / "lightning_jv5" / package / "__init__.py").read_text()
        missing = {alias.asname for node in ast.walk(ast.parse(code)) for alias in getattr(node, "names", [])} - shown
        assert not missing, f"docs/api lacks {sorted(missing)} of lightning_jv5.{package}"
    assert set(lightning_jv5.__all__) - {"__version__"} <= shown


@pytest.mark.parametrize("page", sorted((ROOT / "docs" / "api").glob("*.md")), ids=lambda page: page.stem)
def test_what_the_reference_lists_can_be_imported(page: Path) -> None:
    for name in re.findall(r"^::: (\S+)$", page.read_text(), re.MULTILINE):
        module, _, member = name.rpartition(".")
        assert hasattr(importlib.import_module(module), member), name


PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def anchors(page: Path) -> set[str]:
    """What the headings of a page are called in links to them."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.S | re.M), re.M)
    return {re.sub(r"[^\w -]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_links_of_a_page_lead_somewhere(page: Path) -> None:
    for target, _, anchor in re.findall(r"\]\((?!https?:)([^)#]*)(#([^)]*))?\)", page.read_text()):
        there = page.parent / target if target else page
        assert there.exists(), target
        assert not anchor or anchor in anchors(there), f"{target}#{anchor}"


def test_every_page_is_in_the_sites_navigation() -> None:
    navigation = re.findall(r"^ +- (?:.*: )?(\S+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    pages = {str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md")}
    assert pages <= set(navigation)
    assert len(navigation) == len(set(navigation))


@pytest.mark.parametrize("path", sorted((ROOT / "docs").rglob("*.md")), ids=lambda path: path.stem)
def test_every_table_is_whole(path: Path) -> None:
    prose = re.sub(r"^```.*?^```$", "", path.read_text(), flags=re.DOTALL | re.MULTILINE)
    for table in re.findall(r"(?:^\|.*\n)+", prose, re.MULTILINE):
        assert re.match(r"\|.*\n\|[-:| ]+\n\|", table), f"rows without a header: {table}"


def test_the_names_of_both_libraries_in_the_table_exist() -> None:
    import sentence_transformers
    from sentence_transformers.sentence_transformer import evaluation, losses, training_args

    theirs = {"losses": losses, "evaluation": evaluation, "BatchSamplers": training_args.BatchSamplers}
    theirs["MultiDatasetBatchSamplers"] = training_args.MultiDatasetBatchSamplers
    page = (ROOT / "docs" / "sentence_transformers.md").read_text()
    table = page.partition("|---|---|---|\n")[2].partition("\n\n")[0]
    for row in table.splitlines():
        their_cell, our_cell = row.split("|")[1:3]
        for name in re.findall(r"`([\w.]+)`", their_cell):
            home, _, member = name.rpartition(".")
            assert hasattr(theirs.get(home, sentence_transformers), member), name
        for home, member in re.findall(r"`(?:(losses|data)\.)?(\w+)`", our_cell):
            ours = importlib.import_module(f"lightning_jv5.{home}".rstrip("."))
            assert hasattr(ours, member) or member in COMMANDS, member
        for owner, method, argument in re.findall(r"`(\w+)\.(\w+)\((\w+)=", our_cell):
            assert argument in inspect.signature(getattr(getattr(lightning_jv5, owner), method)).parameters


def test_what_the_docs_say_is_not_here_is_not() -> None:
    page = (ROOT / "docs" / "sentence_transformers.md").read_text()
    absent = " ".join(page.partition("Not here:")[2].partition("\n\n")[0].lower().split())
    assert "sparse encoders" in absent
    written = {path.stem.replace("_", " ") for path in (ROOT / "lightning_jv5" / "export").glob("*.py")}
    assert {"onnx", "model card"} <= written
    assert not [name for name in (*COMMANDS, *written) if re.search(rf"\b{name}s?\b", absent)]


def test_the_memory_table_is_what_the_formula_gives() -> None:
    weights = {"small": (596e6, 20.2e6, 1024), "nano": (212e6, 6.7e6, 768)}
    page = (ROOT / "docs" / "scaling.md").read_text()
    rows = re.findall(
        r"^\| (small|nano), (\w+)(?: adapter)? \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]*) ?\|$", page, re.M
    )
    assert len(rows) == 6
    for model, stage, *shown in rows:
        base, adapter, dim = weights[model]
        projection = 0 if stage == "classification" else 2560 * (dim + 1)
        trained, frozen = (base, 0) if stage == "distillation" else (adapter, base)
        student = 16 * (trained + projection) + 4 * frozen
        teacher = 0 if stage == "classification" else 2 * 4.02e9
        expected = [f"{value / 1e9:.1f}" for value in (student, teacher, student + teacher, student)]
        assert shown == (expected if teacher else [*expected[:3], ""]), (model, stage)


def test_the_cost_of_teacher_vectors_in_the_docs_adds_up() -> None:
    page = (ROOT / "docs" / "scaling.md").read_text()
    tokens = 1e8 * 2 * 128
    hours = tokens * 2 * 4e9 / 4e14 / 3600
    drawn = 50_000 * 4_096
    for shown in (
        f"| {tokens:.1e} |".replace("e+", "e"),
        f"| {hours:.0f} |",
        f"| {hours / 8:.0f} |",
        f"| {1e8 * 2 * 2560 * 2 / 1e12:.2f} TB |",
        f"| {1e8 * 2 * 2564 / 1e12:.2f} TB |",
        f"| {4096 * 10_240 / 1e6:.0f} MB |",
        f"save {round(hours * (drawn / 1e8 - 1), -1):.0f} GPU hours of {round(hours * drawn / 1e8, -1):.0f}",
    ):
        assert shown in page
