from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from lightning_jv5.data.docstring_similarity import GRADES, DocstringSimilarity, scored_pairs, split_modules
from lightning_jv5.data.docstrings import Docstrings, Pair, docstring_pairs, pairs_in
from tests.data.docstring_packages import printed_elsewhere, write_package

VILLAGES: dict[str, Any] = {"packages": ["oldham", "newton"], "heldout": 40}


@pytest.fixture
def villages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("LIGHTNING_JV5_CACHE", str(tmp_path / "cache"))
    write_package(tmp_path / "oldham", 5)
    write_package(tmp_path / "newton", 4)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def slow_grade(first: Pair, second: Pair) -> str:
    """What two docstrings have in common, from the nearest place outwards."""
    if first == second:
        return "same object"
    if first.module == second.module and "." in first.name and "." in second.name:
        return "same class" if first.name.split(".")[0] == second.name.split(".")[0] else "same module"
    if first.module == second.module:
        return "same module"
    return "same package" if first.module.split(".")[0] == second.module.split(".")[0] else "unrelated"


@pytest.mark.parametrize("split", ["train", "heldout"])
def test_the_score_says_how_near_the_two_are_in_the_module_tree(villages: Path, split: Any) -> None:
    pairs = pairs_in(docstring_pairs(VILLAGES["packages"]))
    first, second = ({getattr(pair, side): pair for pair in pairs} for side in ("query", "document"))
    rows = DocstringSimilarity(split, **VILLAGES).load()
    assert len(rows) >= 5 * 8
    for row in rows:
        one, two = first[row["text1"]], second[row["text2"]]
        assert row["score"] == GRADES[slow_grade(one, two)]
        assert row["place1"] == f"{one.module}.{one.name}"
        assert row["place2"] == f"{two.module}.{two.name}"


def test_scores_take_turns_and_no_text_is_first_twice_with_the_same(villages: Path) -> None:
    rows = DocstringSimilarity(**VILLAGES).load()
    assert rows["score"][:] == list(GRADES.values()) * (len(rows) // 5)
    assert max(Counter(zip(rows["text1"], rows["score"], strict=True)).values()) == 1
    assert len(set(rows["text1"])) > 50


def test_held_out_modules_are_not_trained_on_and_hold_those_of_docstrings(villages: Path) -> None:
    train, heldout = (DocstringSimilarity(split, **VILLAGES).load() for split in ("train", "heldout"))

    def modules(rows: Any) -> set[str]:
        return {".".join(place.split(".")[:2]) for row in rows for place in (row["place1"], row["place2"])}

    assert len(modules(heldout)) == 3  # of 16 docstrings each
    assert not modules(train) & modules(heldout)
    packages = VILLAGES["packages"]
    assert set(Docstrings("heldout", packages=packages, heldout=10).load()["module"]) <= modules(heldout)
    assert not set(Docstrings(packages=packages, heldout=40).load()["module"]) & modules(heldout)


def test_what_nearly_repeats_a_held_out_text_is_in_neither_split() -> None:
    numbered = [f"alpha{n} beta{n} gamma{n} delta{n}" for n in range(9)]
    bodies = [f"one{n} two{n} three{n} four{n} five{n} six{n} seven{n} eight{n}" for n in range(18)]
    pairs = [
        Pair(f"{title} {module}", bodies[9 * place + number], module, f"f{number}")
        for place, module in enumerate("ab")
        for number, title in enumerate(numbered)
    ]
    pairs.append(Pair("another title of its own", "and a body with it", "c", "f"))
    pairs.append(Pair("one more title that nobody has", "and a different body with it", "d", "f"))
    train, heldout = split_modules(pairs, 3)
    [repeated] = {pair.module for pair in heldout} & {"a", "b"}
    assert sum(pair.module == repeated for pair in heldout) == 9
    assert {pair.module for pair in train} <= {"c", "d"}


def test_a_pair_depends_on_the_seed_and_its_number_alone(villages: Path) -> None:
    rows = DocstringSimilarity(**VILLAGES).load().to_list()
    assert DocstringSimilarity(**VILLAGES, rows=23).load().to_list() == rows[:23]
    assert DocstringSimilarity(**VILLAGES, seed=1).load().to_list()[:23] != rows[:23]
    held = [DocstringSimilarity("heldout", **VILLAGES, seed=seed).load() for seed in (0, 1)]
    assert held[0].to_list() == held[1].to_list()


def test_partners_are_drawn_from_all_that_are_as_near(villages: Path) -> None:
    pairs = [
        Pair(f"Title {n}.", f"Body {n}.", f"{'ab'[n % 2]}.m{n % 4}", "C." * (n % 3 > 0) + f"f{n}") for n in range(24)
    ]
    drawn = [row for seed in range(300) for row in scored_pairs(pairs, seed, 9)]
    partners = Counter((row.score, row.place2) for row in drawn if row.place1 == "a.m0.C.f4")
    sizes = Counter(score for score, _ in partners)
    assert sizes == {0.0: 12, 0.25: 6, 0.5: 2, 0.75: 3, 1.0: 1}


def test_another_process_gets_the_same_rows_from_its_own_cache(villages: Path, tmp_path: Path) -> None:
    rows = DocstringSimilarity(**VILLAGES).load()
    code = (
        f"from lightning_jv5.data import DocstringSimilarity; rows = DocstringSimilarity(**{VILLAGES!r}).load()\n"
        "print(rows._fingerprint, rows['text2'][:])"
    )
    assert printed_elsewhere(code, villages, tmp_path / "another") == f"{rows._fingerprint} {rows['text2'][:]}"


def test_the_second_load_builds_nothing(villages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = DocstringSimilarity(**VILLAGES).load()
    monkeypatch.setattr("lightning_jv5.data.docstring_similarity.pairs_in", None)
    assert DocstringSimilarity(**VILLAGES).load().to_list() == first.to_list()
    with pytest.raises(TypeError):
        DocstringSimilarity(**VILLAGES, words=12).load()


def test_texts_are_cut_to_so_many_words(villages: Path) -> None:
    rows = DocstringSimilarity(**VILLAGES, words=4).load()
    assert {len(text.split()) for side in ("text1", "text2") for text in rows[side]} == {4}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"split": "test"}, "Got split='test'; need 'train' or 'heldout'"),
        ({"heldout": 0}, "Got heldout=0, words=20; need at least 1"),
        ({"words": 0}, "words=0; need at least 1"),
    ],
)
def test_wrong_arguments_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DocstringSimilarity(**settings)


def test_what_the_packages_cannot_give_is_said(villages: Path) -> None:
    with pytest.raises(ValueError, match="docstrings of oldham give no pairs of every score for split='train'"):
        DocstringSimilarity(packages=["oldham"], heldout=20).load()
    with pytest.raises(ValueError, match=r"Got rows=4000, but docstring similarity has \d+ rows"):
        DocstringSimilarity(**VILLAGES, rows=4000).load()
    with pytest.raises(ValueError, match=r"Got package 'nunpy'.*Did you mean 'numpy'"):
        DocstringSimilarity(packages=["nunpy"]).load()
