from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pytest
import torch
from datasets import Dataset
from torch import Tensor

from lightning_jv5.data import teacher_vectors
from lightning_jv5.data.cache import fingerprint
from lightning_jv5.data.teacher_vectors import add_teacher_vectors
from tests.tiny_data import TinyPairs, tiny_teacher

COLUMNS = {"query": "query", "document": "document"}


class CountingTeacher:
    """Encodes a text as its length and role; may fail after some texts."""

    fingerprint = "counting"
    dim = 3

    def __init__(self, fails_after: int | None = None, value: float = 0.1) -> None:
        self.texts: list[str] = []
        self.fails_after, self.value = fails_after, value

    def encode(self, texts: Sequence[str], role: str) -> Tensor:
        self.texts.extend(texts)
        if self.fails_after is not None and len(self.texts) > self.fails_after:
            raise RuntimeError("out of memory")
        return torch.tensor([[len(text), len(role), self.value] for text in texts])


@pytest.fixture(autouse=True)
def _small_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIGHTNING_JV5_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(teacher_vectors, "_ROWS_PER_SHARD", 4)
    monkeypatch.setattr(teacher_vectors, "_TEXTS_PER_CALL", 2)


def rows(count: int = 10, copies: int = 1) -> Dataset:
    texts = {role: [f"{role} {'x' * (row // copies)}" for row in range(count)] for role in COLUMNS}
    made = Dataset.from_dict(texts)
    made._fingerprint = fingerprint(count, copies)
    return made


def vectors(of: Dataset, column: str) -> Tensor:
    return torch.tensor(of.with_format(None)[column][:])


def test_vectors_are_the_teachers_in_float16(tmp_path: Path) -> None:
    teacher, pairs = tiny_teacher(tmp_path), TinyPairs().load()
    added = add_teacher_vectors(pairs, teacher, columns=COLUMNS, origin="tiny")
    assert added.column_names == ["query", "document", "query_teacher", "document_teacher"]
    for role in COLUMNS:
        expected = teacher.encode(pairs[role][:], role)
        torch.testing.assert_close(vectors(added, f"{role}_teacher"), expected.half().float(), atol=5e-4, rtol=0)


def test_columns_are_memory_mapped_lists_of_float16_of_one_size() -> None:
    added = add_teacher_vectors(rows(), CountingTeacher(), columns=COLUMNS, origin="tiny")
    assert added.data.column("query_teacher").type == pa.list_(pa.float16(), 3)
    files = {Path(file["filename"]).suffix for file in added.cache_files}
    assert files == {".arrow"}
    expected = torch.tensor([[len(text), len("query"), 0.1] for text in rows()["query"]])
    assert torch.equal(vectors(added, "query_teacher"), expected.half().float())


def test_a_second_pass_finds_everything_done() -> None:
    first, second = CountingTeacher(), CountingTeacher()
    one = add_teacher_vectors(rows(), first, columns=COLUMNS, origin="tiny")
    two = add_teacher_vectors(rows(), second, columns=COLUMNS, origin="tiny")
    assert len(first.texts) == 20
    assert second.texts == []
    assert one.to_dict() == two.to_dict()


def test_an_interrupted_pass_computes_only_what_is_missing() -> None:
    interrupted, after = CountingTeacher(fails_after=9), CountingTeacher()
    with pytest.raises(RuntimeError, match="out of memory"):
        add_teacher_vectors(rows(), interrupted, columns=COLUMNS, origin="tiny")
    added = add_teacher_vectors(rows(), after, columns=COLUMNS, origin="tiny")
    assert len(after.texts) == 20 - 8  # two shards of four were whole
    torch.testing.assert_close(vectors(added, "query_teacher")[:, 0], torch.arange(6.0, 16.0))


def test_other_rows_teachers_and_roles_have_vectors_of_their_own() -> None:
    add_teacher_vectors(rows(), CountingTeacher(), columns={"query": "query"}, origin="tiny")
    other = CountingTeacher()
    other.fingerprint = "another"
    for teacher, data, role in ((other, rows(), "query"), (CountingTeacher(), rows(9), "query")):
        add_teacher_vectors(data, teacher, columns={"query": role}, origin="tiny")
        assert len(teacher.texts) == len(data)
    document = CountingTeacher()
    added = add_teacher_vectors(rows(), document, columns={"query": "document"}, origin="tiny")
    assert vectors(added, "query_teacher")[0, 1] == len("document")


def test_equal_texts_of_a_shard_are_encoded_once() -> None:
    teacher = CountingTeacher()
    added = add_teacher_vectors(rows(copies=2), teacher, columns={"query": "query"}, origin="tiny")
    assert len(teacher.texts) == 5
    assert vectors(added, "query_teacher")[:, 0].tolist() == [len(text) for text in rows(copies=2)["query"]]


def test_ranks_divide_the_shards() -> None:
    data, teachers = rows(), [CountingTeacher(), CountingTeacher()]
    waited = []

    def other_rank() -> None:
        waited.append(True)
        add_teacher_vectors(data, teachers[1], columns=COLUMNS, origin="tiny", rank=1, ranks=2)

    added = add_teacher_vectors(data, teachers[0], columns=COLUMNS, origin="tiny", ranks=2, barrier=other_rank)
    assert waited == [True]
    assert [len(teacher.texts) for teacher in teachers] == [12, 8]
    assert len(added) == 10


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e6])
def test_vectors_that_are_not_finite_in_float16_are_refused(value: float) -> None:
    with pytest.raises(ValueError, match="not finite in float16 for one of 2 texts, such as 'query xxx'"):
        add_teacher_vectors(rows(), CountingTeacher(value=value), columns=COLUMNS, origin="tiny")
    assert not list((teacher_vectors.cache_folder() / "teacher").rglob("*.arrow*"))
