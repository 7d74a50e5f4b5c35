from collections.abc import Sequence

import numpy as np
import pytest
from datasets import Dataset

from lightning_jv5.data import longest_first as home
from lightning_jv5.data.longest_first import longest_first, texts_at
from lightning_jv5.data.text_column import TextColumn
from tests.tiny_data import tiny_texts

TEXTS = [*tiny_texts(40, seed=0), "", "日本語のテキスト", "é" * 9, "e" * 9]


class Lazy(Sequence[str]):
    """Texts that are made when they are read; counts how many are asked for at once."""

    def __init__(self) -> None:
        self.most = 0

    def __len__(self) -> int:
        return len(TEXTS)

    def __getitem__(self, which):  # type: ignore[no-untyped-def, override]
        found = TEXTS[which]
        self.most = max(self.most, len(found) if isinstance(which, slice) else 1)
        return found


def columns() -> dict[str, Sequence[str]]:
    rows = Dataset.from_dict({"other": list(range(len(TEXTS))), "text": TEXTS})
    shuffled = Dataset.from_dict({"text": TEXTS[::-1]}).select(range(len(TEXTS) - 1, -1, -1))
    on_disk = TextColumn(Dataset.from_dict({"text": TEXTS[::-1]}), "text")
    backwards = on_disk.take(range(len(TEXTS) - 1, -1, -1))
    return {"backwards": backwards, "list": TEXTS, "column": rows["text"], "selected": shuffled["text"], "lazy": Lazy()}


@pytest.mark.parametrize("name", ["list", "column", "selected", "lazy", "backwards"])
def test_every_kind_of_column_is_ordered_by_characters_and_read_in_that_order(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(home, "_TEXTS_AT_ONCE", 7)
    texts = columns()[name]
    rows = longest_first(texts)
    assert rows.dtype == np.int64
    assert rows.tolist() == sorted(range(len(TEXTS)), key=lambda row: len(TEXTS[row]), reverse=True)
    assert texts_at(texts, rows[:9].tolist()) == [TEXTS[row] for row in rows[:9]]
    assert texts_at(texts, []) == []
    if isinstance(texts, Lazy):
        assert texts.most == 7


def test_texts_that_are_missing_are_empty() -> None:
    rows = Dataset.from_dict({"text": ["a", None, "bb"]})
    for texts in (rows["text"], TextColumn(rows, "text")):
        assert longest_first(texts).tolist() == [2, 0, 1]
        assert texts_at(texts, [1, 2]) == ["", "bb"]


def test_no_texts_have_no_order() -> None:
    assert longest_first([]).tolist() == []
