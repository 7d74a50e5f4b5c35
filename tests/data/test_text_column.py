import pickle
from pathlib import Path

import pyarrow as pa
import pytest

from lightning_jv5.data.arrow_cache import mapped_rows, write_arrow
from lightning_jv5.data.text_column import TextColumn


@pytest.fixture
def texts(tmp_path: Path) -> TextColumn:
    schema = pa.schema({"text": pa.string()})
    tables = [pa.table({"text": part}, schema) for part in (["a", "b"], ["c", None, "e"])]
    write_arrow(tmp_path / "texts.arrow", schema, tables)
    return TextColumn(mapped_rows(tmp_path / "texts.arrow", "key"), "text")


def test_it_reads_as_a_list_of_its_texts(texts: TextColumn) -> None:
    wanted = ["a", "b", "c", "", "e"]
    assert (len(texts), list(texts), texts[-1], texts[1:4]) == (5, wanted, "e", ["b", "c", ""])
    assert [texts[row] for row in (4, 0, 2)] == ["e", "a", "c"]
    for row in (5, -6):
        with pytest.raises(IndexError):
            texts[row]


def test_a_selection_of_a_selection_is_still_on_disk(texts: TextColumn) -> None:
    some = texts.take([4, 0, 2]).take([2, 0])
    assert (len(some), list(some), some[-1]) == (2, ["c", "e"], "e")
    with pytest.raises(IndexError):
        some[2]


def test_another_process_maps_the_file_again(texts: TextColumn) -> None:
    assert texts[0] == "a"
    stored = pickle.dumps(texts.take([4, 0]))
    assert len(stored) < 20_000
    assert list(pickle.loads(stored)) == ["e", "a"]
