from pathlib import Path

import pytest
import torch
from datasets import Dataset

from lightning_jv5.data.rows import EvaluationRows, TrainingRows
from lightning_jv5.data.tokenized import tokenize_columns
from lightning_jv5.models import Teacher
from tests.tiny_data import TEACHER_DIM, TinyPairs, TinyVectors, tiny_teacher

COLUMNS = {"query": "query", "document": "document"}


@pytest.fixture
def teacher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Teacher:
    monkeypatch.setenv("LIGHTNING_JV5_CACHE", str(tmp_path / "cache"))
    return tiny_teacher(tmp_path)


def training_rows(rows: Dataset, teacher: Teacher, *names: str) -> TrainingRows:
    tokenizations = dict.fromkeys(names, teacher.tokenization)
    return TrainingRows(tokenize_columns(rows, tokenizations=tokenizations, columns=COLUMNS, origin="tiny"), name="nq")


def test_token_ids_of_a_batch_are_those_of_tokenising_directly(teacher: Teacher) -> None:
    rows = TinyPairs().load()
    picked = [7, 0, 7, 3]
    batch = training_rows(rows, teacher, "student", "teacher").__getitems__(picked)
    for role in COLUMNS:
        texts = [rows[row][role] for row in picked]
        expected = teacher.tokenization(texts, role)
        for ragged in (batch.texts[role], batch.teacher_texts[role]):
            assert [part.tolist() for part in ragged.token_ids.split(ragged.lengths.tolist())] == expected
            assert ragged.token_ids.dtype == ragged.lengths.dtype == torch.int64
    assert (batch.dataset, batch.teacher_vectors) == ("nq", {})


def test_teacher_vectors_of_a_batch_are_the_columns_in_float16(teacher: Teacher) -> None:
    rows = TinyVectors().load()
    batch = training_rows(rows, teacher, "student").__getitems__([5, 1])
    assert batch.teacher_texts == {}
    for role in COLUMNS:
        vectors = batch.teacher_vectors[role]
        assert (vectors.dtype, vectors.shape) == (torch.float16, (2, TEACHER_DIM))
        assert vectors.tolist() == [rows[row][f"{role}_teacher"] for row in (5, 1)]


def test_one_row_is_a_batch_of_one(teacher: Teacher) -> None:
    rows = training_rows(TinyPairs().load(), teacher, "student")
    assert len(rows) == 12
    assert rows[2].texts["query"].token_ids.tolist() == rows.__getitems__([2]).texts["query"].token_ids.tolist()


def test_a_batch_can_be_written_to(teacher: Teacher) -> None:
    batch = training_rows(TinyVectors().load(), teacher, "student").__getitems__([0])
    before = training_rows(TinyVectors().load(), teacher, "student").__getitems__([0])
    batch.texts["query"].token_ids.zero_()
    batch.teacher_vectors["query"].zero_()
    again = training_rows(TinyVectors().load(), teacher, "student").__getitems__([0])
    assert torch.equal(again.texts["query"].token_ids, before.texts["query"].token_ids)
    assert torch.equal(again.teacher_vectors["query"], before.teacher_vectors["query"])


def test_evaluation_rows_say_where_their_texts_stand(teacher: Teacher) -> None:
    texts = ["a cat", "a dog", "a house", "a tree", "a mat"]
    rows = EvaluationRows(texts, range(1, 5, 2), teacher.tokenization, role="document", task="trees")
    assert len(rows) == 2
    batch = rows.__getitems__([1, 0])
    assert batch.rows.tolist() == [3, 1]
    assert (batch.task, batch.role) == ("trees", "document")
    expected = teacher.tokenization(["a tree", "a dog"], "document")
    assert batch.texts.token_ids.tolist() == [token for ids in expected for token in ids]
    assert rows[0].rows.tolist() == [1]


def test_places_beyond_the_rows_have_no_text(teacher: Teacher) -> None:
    rows = EvaluationRows(["a", "a cat"], [1], teacher.tokenization, role="document", task="tiny", places=2)
    assert len(rows) == 2
    assert rows.__getitems__([0, 1]).rows.tolist() == [1]
    empty = rows[1]
    assert len(empty.texts) == 0
    assert (empty.rows.dtype, empty.texts.token_ids.dtype) == (torch.int64, torch.int64)
