import subprocess
import sys
from pathlib import Path

import pytest

from lightning_jv5.data.docstrings import DEFAULT_PACKAGES, Docstrings, NearCopies, Pair, split_docstring, split_pairs

NOUNS = ["apple", "bridge", "candle", "desert", "engine", "forest", "garden", "hammer", "island", "jungle", "kettle"]
VERBS = ["paint", "carry", "measure", "repair", "borrow", "describe", "hide", "polish", "throw", "weigh", "fold"]


def source_of(module: int) -> str:
    """A module of eleven functions, each documented in words that no other uses in that order."""
    functions = []
    for number, verb in enumerate(VERBS):
        noun, tool = NOUNS[module % 11], NOUNS[(module + number + 1) % 11]
        functions.append(
            f"def {verb}_{number}():\n"
            f'    """{verb.title()} the {noun} of house {module}.\n\n'
            f"    Take the {tool} in room {module} of floor {number}, then {verb} it until {noun} and {tool} agree.\n\n"
            '    Args:\n        x: Ignored.\n    """\n'
        )
    return "\n".join(functions)


@pytest.fixture
def village(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A package of twelve modules that would fail if it were imported."""
    monkeypatch.setenv("LIGHTNING_JV5_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "village"
    (folder / "tests").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise RuntimeError('imported')")
    (folder / "broken.py").write_text("def (")
    (folder / "made.py").write_text("# @generated\n" + source_of(90))
    (folder / "tests" / "case.py").write_text(source_of(91))
    for number in range(12):
        (folder / f"house{number}.py").write_text(source_of(number))
    monkeypatch.syspath_prepend(tmp_path)
    return folder


def test_pairs_say_where_they_are_from(village: Path) -> None:
    rows = Docstrings(packages=["village"], heldout=10).load()
    row = next(row for row in rows if row["name"] == "carry_1" and row["module"] == rows[0]["module"])
    number = row["module"].removeprefix("village.house")
    assert row["query"] == f"Carry the {NOUNS[int(number) % 11]} of house {number}."
    assert row["document"].startswith("Take the ")
    assert row["document"].endswith(" agree.")
    assert {row["module"] for row in rows} <= {f"village.house{number}" for number in range(12)}


def test_held_out_modules_are_not_trained_on(village: Path) -> None:
    heldout = Docstrings("heldout", packages=["village"], heldout=10).load()
    train = Docstrings(packages=["village"], heldout=10).load()
    assert len(heldout) == 10
    assert not set(heldout["module"]) & set(train["module"])


def test_seed_orders_the_training_rows_and_nothing_else(village: Path) -> None:
    first, second = (Docstrings(packages=["village"], heldout=10, seed=seed).load() for seed in (0, 1))
    assert first["query"][:] != second["query"][:]
    assert sorted(first["query"]) == sorted(second["query"])
    assert len(set(first["module"][:30])) > 4
    held = [Docstrings("heldout", packages=["village"], heldout=10, seed=seed).load()["query"][:] for seed in (0, 1)]
    assert held[0] == held[1]


def test_another_process_gets_the_same_rows_from_its_own_cache(village: Path, tmp_path: Path) -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(village.parent)!r})\n"
        "from lightning_jv5.data.docstrings import Docstrings\n"
        "rows = Docstrings(packages=['village'], heldout=10, rows=40).load()\n"
        "print(rows._fingerprint, rows['query'][:])"
    )
    rows = Docstrings(packages=["village"], heldout=10, rows=40).load()
    for cache in (tmp_path / "cache", tmp_path / "another"):
        environment = {"LIGHTNING_JV5_CACHE": str(cache), "PYTHONHASHSEED": "7", "PYTHONPATH": str(Path.cwd())}
        printed = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
        ).stdout
        assert printed.strip() == f"{rows._fingerprint} {rows['query'][:]}"


def test_the_second_load_reads_no_source(village: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = Docstrings(packages=["village"], heldout=10).load()
    monkeypatch.setattr("lightning_jv5.data.docstrings.read_file", None)
    second = Docstrings(packages=["village"], heldout=10).load()
    assert first["query"][:] == second["query"][:]
    (village / "house0.py").write_text(source_of(50))  # what changed is read again
    with pytest.raises(TypeError):
        Docstrings(packages=["village"], heldout=10).load()


def test_too_many_rows_say_how_many_there_are(village: Path) -> None:
    with pytest.raises(ValueError, match=r"Got rows=4000, but the docstrings of village give \d+ rows.*stdlib, numpy"):
        Docstrings(packages=["village"], heldout=10, rows=4000).load()
    with pytest.raises(ValueError, match=r"Got heldout=500, but village give \d+ pairs to hold out"):
        Docstrings(packages=["village"]).load()


def test_a_package_that_is_not_installed_names_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"Got package 'nunpy'.*Did you mean 'numpy'"):
        Docstrings(packages=["nunpy"]).load()
    with pytest.raises(ValueError, match=r"Got package 'torch\.optimm'.*Did you mean 'torch\.optim'"):
        Docstrings(packages=["torch.optimm"]).load()


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="Got split='test'; need 'train' or 'heldout'"):
        Docstrings("test")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="Got heldout=0"):
        Docstrings(heldout=0)


def test_real_packages_share_no_near_copies_between_the_splits(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LIGHTNING_JV5_CACHE", str(tmp_path))
    packages = ["torchmetrics", "datasets", "jsonargparse"]
    heldout = Docstrings("heldout", packages=packages, heldout=100).load().to_list()
    train = Docstrings(packages=packages, heldout=100).load().to_list()
    assert len(train) > 300

    def stretches(text: str) -> set[tuple[str, ...]]:
        words = "".join(letter if letter.isascii() and letter.isalnum() else " " for letter in text.lower()).split()
        return {tuple(words[start : start + 8]) for start in range(max(1, len(words) - 7))}

    for held in heldout:
        body = stretches(held["document"])
        for row in train:
            other = stretches(row["document"])
            assert len(body & other) <= 0.3 * min(len(body), len(other))
            assert held["query"].lower() != row["query"].lower()


def test_default_packages_are_installed_by_the_core_dependencies() -> None:
    from lightning_jv5.data.docstrings import _locate

    assert all(_locate(package).exists() for package in DEFAULT_PACKAGES)


@pytest.mark.parametrize(
    ("title", "body", "copy"),
    [
        ("Return the mean of values.", "Nothing of this body is anywhere else, word for word.", True),
        ("Something different.", "Start. The sum of all values is divided by how many there are. End of it all.", True),
        ("Return the median of values.", "Half of the values are below what is returned, and half above.", False),
    ],
)
def test_near_copies_share_a_title_or_a_stretch_of_body(title: str, body: str, copy: bool) -> None:
    copies = NearCopies()
    copies.add(Pair("Returns the mean of value", "The sum of all values is divided by how many there are.", "a", "f"))
    assert copies.holds(Pair(title, body, "b", "g")) is copy


def test_pairs_with_the_same_title_or_body_are_kept_once() -> None:
    bodies = [
        f"The body numbered {number} has words of its own: {word} {word[::-1]}." for number, word in enumerate(NOUNS)
    ]
    pairs = [
        Pair(f"{verb} number {number}", body, f"m{number}", "")
        for number, (verb, body) in enumerate(zip(VERBS, bodies, strict=True))
    ]
    again = [Pair(pairs[0].query.upper(), "Another body that has the same title as one before it.", "z", "")]
    again.append(Pair("Another title altogether", bodies[1] + "  ", "z", ""))
    train, heldout = split_pairs(pairs + again, 3)
    assert {pair.module for pair in train + heldout} == {pair.module for pair in pairs}


def test_markup_code_and_tables_are_taken_out() -> None:
    docstring = """Return the `mean` of :class:`~torch.Tensor` values.

    It is the sum of **all** values [1]_ divided by their ``number``, see
    the `manual <https://example.org>`_.

    >>> mean([1, 2])
    1.5

    .. versionadded:: 2.0
        With much more text than is wanted here.

    .. note:: Empty input gives zero, which may surprise you.

    For example::

        mean([1])

    Parameters
    ----------
    values : list of float
        The values.

    Notes
    -----
    The sum is exact.

    ========  =====
    column    value
    ========  =====

    References
    ----------
    .. [1] Someone, Somewhere.
    """
    assert split_docstring(docstring) == (
        "Return the mean of Tensor values.",
        "It is the sum of all values divided by their number, see the manual. Empty input gives zero, which may "
        "surprise you. The sum is exact.",
    )


def test_google_sections_and_fences_are_taken_out() -> None:
    docstring = """Count the words of a text.

        Words are separated by white space; case makes no difference to the count.

        Args:
            text (`str`): What to
                count in.

        Returns:
            The number.

        Note:
            An empty text has no words.

        ```python
        count("a b")
        ```
        """
    assert split_docstring(docstring) == (
        "Count the words of a text.",
        "Words are separated by white space; case makes no difference to the count. An empty text has no words.",
    )


@pytest.mark.parametrize(
    "docstring",
    [
        "Too short.\n\nThe body is fine here, with more than eight words in it.",
        "Return the first of them.\n\nToo short a body.",
        "Return the first of them.",
        "Return the first of them.\n\nReturn the first of them, which is a repetition of the title.",
        "Deprecated since version two.\n\nThe body is fine here, with more than eight words in it.",
    ],
)
def test_what_makes_no_good_pair_is_left_out(docstring: str) -> None:
    assert split_docstring(docstring) is None


def test_a_signature_is_no_title() -> None:
    docstring = "f(x, y=2) -> int\n\nAdd two numbers up. Both are taken as they are, without looking at their type.\n"
    assert split_docstring(docstring) == (
        "Add two numbers up.",
        "Both are taken as they are, without looking at their type.",
    )
