import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import datasets
import pyarrow as pa
import pytest

from lightning_jv5.data.tokenized import tokenize_columns
from lightning_jv5.models.tokenization import TokenizedTexts


class Letters:
    """A token id per letter, after one for the prompt, and at most three; counts how many texts it was asked for."""

    def __init__(self, prompt: str = "query", fingerprint: str = "letters") -> None:
        self.prompt, self.fingerprint = prompt, f"{fingerprint} {prompt}"
        self.asked = 0

    def __call__(self, texts: Sequence[str]) -> TokenizedTexts:
        self.asked += len(texts)
        ids = [[len(self.prompt), *map(ord, text)] for text in texts]
        return TokenizedTexts([tokens[:3] for tokens in ids], [len(tokens) > 3 for tokens in ids])


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LIGHTNING_JV5_CACHE", str(tmp_path / "cache"))


def pairs() -> datasets.Dataset:
    return datasets.Dataset.from_dict({"query": ["a", "bcx"], "document": ["d", "e"], "query_teacher": [[0.5], [1.5]]})


def test_each_column_gives_int32_ids_and_counts_what_was_cut() -> None:
    rows = tokenize_columns(pairs(), "student", {"query": Letters(), "document": Letters("document")}, origin="x")
    rows = tokenize_columns(rows, "teacher", {"query": Letters("t")}, origin="x")
    added = ("query_student_ids", "query_student_cut", "document_student_ids", "document_student_cut")
    assert rows.column_names == [*pairs().column_names, *added, "query_teacher_ids", "query_teacher_cut"]
    assert rows["query_student_ids"][:] == [[5, 97], [5, 98, 99]]
    assert rows["query_student_cut"][:] == [0, 1]
    assert rows["document_student_ids"][:] == [[8, 100], [8, 101]]
    assert rows["query_teacher_ids"][:] == [[1, 97], [1, 98, 99]]
    assert rows["query_teacher"][:] == [[0.5], [1.5]]
    assert rows.data.table.schema.field("query_student_ids").type == pa.list_(pa.int32())


def test_missing_texts_and_lists_of_texts() -> None:
    rows = datasets.Dataset.from_dict({"negative": ["a", None, "bcd"], "negatives": [["a"], ["bcd", "e", "fgh"], []]})
    rows = tokenize_columns(rows, "student", {"negative": Letters(), "negatives": Letters()}, origin="x")
    assert rows["negative_student_ids"][:] == [[5, 97], [], [5, 98, 99]]
    assert rows["negative_student_cut"][:] == [0, 0, 1]
    assert rows["negatives_student_ids"][:] == [[[5, 97]], [[5, 98, 99], [5, 101], [5, 102, 103]], []]
    assert rows["negatives_student_cut"][:] == [0, 2, 0]
    assert rows.data.table.schema.field("negatives_student_ids").type == pa.list_(pa.list_(pa.int32()))


def test_nothing_is_tokenised_twice_and_a_change_redoes_only_its_part() -> None:
    def asked(dataset: datasets.Dataset, document: str = "document", fingerprint: str = "letters") -> int:
        columns = {"query": Letters("query", fingerprint), "document": Letters(document, fingerprint)}
        tokenize_columns(dataset, "student", columns, origin="x")
        return sum(letters.asked for letters in columns.values())

    assert asked(pairs()) == 4
    assert asked(pairs()) == 0
    assert asked(pairs(), document="passage") == 2
    assert asked(pairs(), fingerprint="longer") == 4
    assert asked(pairs().select(range(1))) == 2


def test_a_failing_tokenizer_leaves_no_cache_behind(tmp_path: Path) -> None:
    class Broken(Letters):
        def __call__(self, texts: Sequence[str]) -> TokenizedTexts:
            raise RuntimeError("no vocabulary")

    with pytest.raises(RuntimeError, match="no vocabulary"):
        tokenize_columns(pairs(), "student", {"query": Broken()}, origin="x")
    assert not list((tmp_path / "cache").rglob("*.arrow"))


def test_a_second_process_reads_the_cache(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "ab"}\n{"text": "c"}\n')
    code = (
        "from lightning_jv5.data.files import LocalFiles\n"
        "from lightning_jv5.data.tokenized import tokenize_columns\n"
        "from tests.data.test_tokenized import Letters\n"
        f"letters = Letters(); rows = LocalFiles({str(path)!r}).load()\n"
        "rows = tokenize_columns(rows, 'student', {'text': letters}, origin='x')\n"
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
        tokenize_columns(pairs(), "student", {"querry": Letters()}, origin="x")
    taken = pairs().rename_column("query_teacher", "query_student_ids")
    with pytest.raises(ValueError, match="has a column 'query_student_ids' already"):
        tokenize_columns(taken, "student", {"query": Letters()}, origin="x")
    with pytest.raises(ValueError, match="x has no rows"):
        tokenize_columns(pairs().select(range(0)), "student", {}, origin="x")
