from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset

from lightning_jv5.data import distinct_texts as module
from lightning_jv5.data.cache import fingerprint
from lightning_jv5.data.distinct_texts import distinct_texts


@pytest.fixture(autouse=True)
def _own_cache_and_small_tables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LIGHTNING_JV5_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(module, "_ROWS_PER_TABLE", 3)


def rows(texts: list[str | None], column: str = "text") -> Dataset:
    made = Dataset.from_dict({column: texts})
    made._fingerprint = fingerprint(texts, column)
    return made


def test_distinct_texts_are_what_a_dict_of_plain_texts_holds() -> None:
    generator = np.random.default_rng(0)
    words = ["a", "A ", " b", "b\n", "c", "", "  ", "d e", "D  E", "f"]
    columns = [[words[place] for place in generator.integers(0, len(words), size)] for size in (11, 1, 8)]
    first: dict[str, str] = {}
    for text in (text for texts in columns for text in texts):
        if text.strip():
            first.setdefault(" ".join(text.split()).lower(), text)
    found = distinct_texts([(rows(texts), "text") for texts in columns], "words")
    assert found.texts["text"][:] == list(first.values())
    for texts, codes in zip(columns, found.codes, strict=True):
        plain = [" ".join(text.split()).lower() for text in texts]
        assert codes.tolist() == [list(first).index(text) if text else -1 for text in plain]
    assert len(set(found.keys.tolist())) == len(first)


def test_a_missing_text_is_blank() -> None:
    assert distinct_texts([(rows(["a", None]), "text")], "words").codes[0].tolist() == [0, -1]


def test_they_are_written_once(monkeypatch: pytest.MonkeyPatch) -> None:
    columns = [(rows(["a", "b", "a"], "query"), "query")]
    first = distinct_texts(columns, "queries")
    monkeypatch.setattr(module, "_keys", None)
    second = distinct_texts(columns, "queries")
    assert second.texts._fingerprint == first.texts._fingerprint
    assert second.codes[0].tolist() == [0, 1, 0]
    assert [Path(file["filename"]).name for file in second.texts.cache_files] == ["texts.arrow"]


def test_equal_texts_have_equal_keys_wherever_they_are() -> None:
    one, other = (distinct_texts([(rows(texts), "text")], "words").keys for texts in (["a b", "c"], ["x", "A  b"]))
    assert one[0] == other[1]
    assert one[1] not in other


def test_the_fingerprint_is_that_of_the_texts_wherever_they_are_from() -> None:
    corpus = rows(["a", "b", "c", "d"])
    prints = {
        distinct_texts([(corpus, "text"), (rows(extra, "document"), "document")], "documents").texts._fingerprint
        for extra in (["b"], ["d", "a"], ["A"])
    }
    assert len(prints) == 1
    others = (["a", "b", "d", "c"], ["a", "b", "cd"], ["a", "b", "c", "d", "e"])
    assert not prints & {distinct_texts([(rows(texts), "text")], "documents").texts._fingerprint for texts in others}
