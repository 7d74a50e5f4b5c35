from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from lightning_jv5.data.docstring_labels import DocstringLabels, LabelledText, labelled_texts, split_labels
from lightning_jv5.data.docstrings import Pair
from tests.data.docstring_packages import printed_elsewhere, write_package

VILLAGES: dict[str, Any] = {"packages": ["oldham", "newton"], "heldout_per_label": 10, "min_per_label": 20}


@pytest.fixture
def villages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("LIGHTNING_JV5_CACHE", str(tmp_path / "cache"))
    for name, modules in {"oldham": 4, "newton": 3, "hamlet": 1}.items():
        write_package(tmp_path / name, modules)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_the_label_is_the_package_and_every_label_is_in_both_splits(villages: Path) -> None:
    train, heldout = DocstringLabels(**VILLAGES).load(), DocstringLabels("heldout", **VILLAGES).load()
    assert Counter(heldout["label"]) == {"oldham": 10, "newton": 10}
    assert Counter(train["label"]) == {"oldham": 4 * 16 - 10, "newton": 3 * 16 - 10}
    for row in [*train, *heldout]:
        assert row["module"].startswith(f"{row['label']}.house")
        assert len(row["text"].split()) <= 20


def test_deeper_labels_are_modules(villages: Path) -> None:
    rows = DocstringLabels(packages=["oldham"], depth=2, heldout_per_label=3, min_per_label=4).load()
    assert {row["label"] for row in rows} == {f"oldham.house{number}" for number in range(4)}
    assert all(row["label"] == row["module"] for row in rows)


def test_labels_of_few_texts_are_left_out(villages: Path) -> None:
    rows = DocstringLabels(**{**VILLAGES, "packages": ["oldham", "newton", "hamlet"]}).load()
    assert set(rows["label"]) == {"oldham", "newton"}
    with pytest.raises(
        ValueError, match=r"min_per_label=60, but at depth=1 the docstrings of oldham, newton have 0 lab"
    ):
        DocstringLabels(**{**VILLAGES, "min_per_label": 60}).load()


def test_large_labels_are_cut_to_texts_that_the_seed_picks(villages: Path) -> None:
    settings = {**VILLAGES, "min_per_label": 5, "max_per_label": 20}
    first, second = (DocstringLabels(**settings, seed=seed).load() for seed in (0, 1))
    assert Counter(first["label"]) == Counter(second["label"]) == {"oldham": 20, "newton": 20}
    assert set(first["text"]) != set(second["text"])
    assert len(set(first["label"][:10])) == 2
    held = [DocstringLabels("heldout", **settings, seed=seed).load()["text"][:] for seed in (0, 1)]
    assert held[0] == held[1]


def test_a_part_of_the_rows_is_the_first(villages: Path) -> None:
    whole, part = DocstringLabels(**VILLAGES).load(), DocstringLabels(**VILLAGES, rows=7).load()
    assert part["text"][:] == whole["text"][:7]
    with pytest.raises(ValueError, match="Got rows=4000, but docstring labels has 92 rows"):
        DocstringLabels(**VILLAGES, rows=4000).load()


def test_another_process_gets_the_same_rows_from_its_own_cache(villages: Path, tmp_path: Path) -> None:
    rows = DocstringLabels(**VILLAGES).load()
    code = (
        f"from lightning_jv5.data import DocstringLabels; rows = DocstringLabels(**{VILLAGES!r}).load()\n"
        "print(rows._fingerprint, rows['text'][:])"
    )
    assert printed_elsewhere(code, villages, tmp_path / "another") == f"{rows._fingerprint} {rows['text'][:]}"


def test_the_second_load_builds_nothing(villages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = DocstringLabels(**VILLAGES).load()
    monkeypatch.setattr("lightning_jv5.data.docstring_labels.pairs_in", None)
    assert DocstringLabels(**VILLAGES).load()["text"][:] == first["text"][:]
    with pytest.raises(TypeError):
        DocstringLabels(**VILLAGES, words=12).load()


@pytest.mark.parametrize(
    ("text", "short"), [("query", "Draw it."), ("document", "Then look at"), ("both", "Draw it. Then")]
)
def test_the_text_is_the_part_that_was_asked_for(text: Any, short: str) -> None:
    [row] = labelled_texts([Pair("Draw it.", "Then look at the picture.", "a.b.c", "f")], 1, text, 3)
    assert row == LabelledText(short, "a", "a.b.c", "f")


@pytest.mark.parametrize("title", ["A SciPy array", "Describe `scipy.stats` well", "The stats of it"])
def test_texts_that_name_their_label_are_left_out(title: str) -> None:
    pair = Pair(title, "It goes on without any.", "scipy._stats.x", "f")
    assert labelled_texts([pair], 2, "query", 9) == []
    assert len(labelled_texts([pair], 2, "document", 9)) == 1


def test_what_is_not_so_deep_has_no_label() -> None:
    assert labelled_texts([Pair("Draw it.", "Then look.", "turtle", "f")], 2, "query", 9) == []


def test_a_text_of_several_objects_is_used_once() -> None:
    pairs = [Pair("Draw it.", f"Then look at {number}.", module, "f") for number, module in enumerate("ab")]
    assert [row.label for row in labelled_texts(pairs, 1, "query", 9)] == ["a"]


def test_what_nearly_repeats_a_held_out_text_is_in_neither_split() -> None:
    numbered = [f"alpha{n} beta{n} gamma{n} delta{n} epsilon{n}" for n in range(12)]
    rows = [
        LabelledText(text, label, f"{label}.m", "f") for label in "ab" for text in (f"{t} {label}" for t in numbered)
    ]
    train, heldout = split_labels(rows, 3, 2)
    kept, held = ({row.text[:-2] for rows in part.values() for row in rows} for part in (train, heldout))
    assert len(held) == 6
    assert not kept & held
    assert kept | held == set(numbered)
    assert split_labels(rows, 3, 7) == ({}, {})  # six are left of each


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"split": "test"}, "Got split='test'; need 'train' or 'heldout'"),
        ({"text": "title"}, "Got text='title'; need 'query', 'document' or 'both'"),
        ({"depth": 0}, "Got depth=0, words=20"),
        ({"words": 0}, "words=0, heldout_per_label=40; need at least 1"),
        ({"min_per_label": 1}, "Got min_per_label=1, max_per_label=400; need 2 or more"),
        ({"min_per_label": 9, "max_per_label": 8}, "Got min_per_label=9, max_per_label=8"),
    ],
)
def test_wrong_arguments_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DocstringLabels(**settings)


def test_a_package_that_is_not_installed_is_named() -> None:
    with pytest.raises(ValueError, match=r"Got package 'nunpy'.*Did you mean 'numpy'"):
        DocstringLabels(packages=["nunpy"]).load()


def test_held_out_labels_can_be_told_from_the_training_texts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.neighbors import KNeighborsClassifier

    monkeypatch.setenv("LIGHTNING_JV5_CACHE", str(tmp_path))
    settings: dict[str, Any] = {"packages": ["networkx", "torchmetrics", "peft", "huggingface_hub"]}
    train, heldout = DocstringLabels(**settings).load(), DocstringLabels("heldout", **settings).load()
    assert len(heldout) == 160
    words = TfidfVectorizer(stop_words="english").fit(train["text"][:])
    nearest = KNeighborsClassifier(10).fit(words.transform(train["text"][:]), train["label"][:])
    assert nearest.score(words.transform(heldout["text"][:]), heldout["label"][:]) > 0.6  # chance is 0.25
