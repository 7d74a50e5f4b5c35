import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import datasets
import pyarrow as pa
import pytest

from lightning_jv5.data.tokenized import tokenize_columns


class Letters:
    """A token id per letter, after one for the role; counts how many texts it was asked for."""

    def __init__(self, fingerprint: str = "letters") -> None:
        self.fingerprint = fingerprint
        self.asked = 0

    def __call__(self, texts: Sequence[str], role: str) -> list[list[int]]:
        self.asked += len(texts)
        return [[len(role), *map(ord, text)] for text in texts]


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LIGHTNING_JV5_CACHE", str(tmp_path / "cache"))


def pairs() -> datasets.Dataset:
    return datasets.Dataset.from_dict({"query": ["a", "bc"], "document": ["d", "e"], "query_teacher": [[0.5], [1.5]]})


COLUMNS = {"query": "query", "document": "document"}


def test_each_column_and_tokenization_gives_int32_ids() -> None:
    rows = tokenize_columns(
        pairs(), tokenizations={"student": Letters(), "teacher": Letters("other")}, columns=COLUMNS, origin="x"
    )
    assert rows.column_names == [
        *pairs().column_names,
        *("query_student_ids", "query_teacher_ids", "document_student_ids", "document_teacher_ids"),
    ]
    assert rows["query_student_ids"][:] == [[5, 97], [5, 98, 99]]
    assert rows["document_teacher_ids"][:] == [[8, 100], [8, 101]]
    assert rows["query_teacher"][:] == [[0.5], [1.5]]
    assert rows.data.table.schema.field("query_student_ids").type == pa.list_(pa.int32())


def test_nothing_is_tokenised_twice_and_a_change_redoes_only_its_part() -> None:
    def asked(dataset: datasets.Dataset, columns: dict[str, str], fingerprint: str = "letters") -> int:
        letters = Letters(fingerprint)
        tokenize_columns(dataset, tokenizations={"student": letters}, columns=columns, origin="x")
        return letters.asked

    assert asked(pairs(), COLUMNS) == 4
    assert asked(pairs(), COLUMNS) == 0
    assert asked(pairs(), {**COLUMNS, "document": "passage"}) == 2
    assert asked(pairs(), COLUMNS, fingerprint="longer") == 4
    assert asked(pairs().select(range(1)), COLUMNS) == 2


def test_a_failing_tokenizer_leaves_no_cache_behind(tmp_path: Path) -> None:
    class Broken(Letters):
        def __call__(self, texts: Sequence[str], role: str) -> list[list[int]]:
            raise RuntimeError("no vocabulary")

    with pytest.raises(RuntimeError, match="no vocabulary"):
        tokenize_columns(pairs(), tokenizations={"student": Broken()}, columns=COLUMNS, origin="x")
    assert not list((tmp_path / "cache").rglob("*.arrow"))


def test_a_second_process_reads_the_cache(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "ab"}\n{"text": "c"}\n')
    code = (
        "from lightning_jv5.data.files import LocalFiles\n"
        "from lightning_jv5.data.tokenized import tokenize_columns\n"
        "from tests.data.test_tokenized import Letters\n"
        f"letters = Letters(); rows = LocalFiles({str(path)!r}).load()\n"
        "rows = tokenize_columns(rows, tokenizations={'student': letters}, columns={'text': 'query'}, origin='x')\n"
        "print(letters.asked, rows['text_student_ids'][:], rows._fingerprint)"
    )
    first, second = (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split(" ", 1)
        for _ in range(2)
    )
    assert (first[0], second[0]) == ("2", "0")
    assert first[1] == second[1]


def test_errors_name_the_columns() -> None:
    with pytest.raises(ValueError, match=r"x has the columns .*none is 'querry'.*Did you mean 'query'"):
        tokenize_columns(pairs(), tokenizations={}, columns={"querry": "query"}, origin="x")
    taken = pairs().rename_column("query_teacher", "query_student_ids")
    with pytest.raises(ValueError, match="has a column 'query_student_ids' already"):
        tokenize_columns(taken, tokenizations={"student": Letters()}, columns=COLUMNS, origin="x")
    with pytest.raises(ValueError, match="x has no rows"):
        tokenize_columns(pairs().select(range(0)), tokenizations={}, columns=COLUMNS, origin="x")
