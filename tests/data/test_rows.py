from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from datasets import Dataset

from lightning_jv5.data.label_tuples import LabelTuples
from lightning_jv5.data.layouts import Layout, row_by_row
from lightning_jv5.data.mixture import Draw, MixturePlan, PlannedSet
from lightning_jv5.data.rows import BatchReader, EvaluationRows, TrainingRows
from lightning_jv5.data.tokenized import tokenize_columns
from lightning_jv5.models import Teacher
from tests.tiny_data import TEACHER_DIM, TinyPairs, TinyVectors, tiny_teacher

ALL = slice(None)


@pytest.fixture
def teacher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Teacher:
    monkeypatch.setenv("LIGHTNING_JV5_CACHE", str(tmp_path / "cache"))
    return tiny_teacher(tmp_path)


def training_rows(
    rows: Dataset,
    teacher: Teacher,
    *,
    layout: Layout | None = None,
    online: bool = False,
    cached: bool = True,
    batch_size: int = 4,
    roles: tuple[str, ...] = ("query", "document"),
    **settings: Any,
) -> TrainingRows:
    layout = layout or row_by_row(rows.column_names, len(rows), "tiny")
    student = {column: teacher.tokenization.column("document", max_length=6) for column in layout.text_columns}
    teachers = {column: teacher.tokenization.column("query") for column in layout.text_columns} if online else {}
    if cached:
        rows = tokenize_columns(rows, "student", student, origin="tiny")
        rows = tokenize_columns(rows, "teacher", teachers, origin="tiny")
    plan = MixturePlan({"nq": PlannedSet(layout.size, batch_size)}, seed=0)
    return TrainingRows(rows, BatchReader("nq", layout, student, teachers, roles), plan, **settings)


def tokens(ragged: Any) -> list[list[int]]:
    return [part.tolist() for part in ragged.token_ids.split(ragged.lengths.tolist())]


@pytest.mark.parametrize("cached", [True, False])
def test_token_ids_of_a_batch_are_those_of_tokenising_directly(teacher: Teacher, cached: bool) -> None:
    pairs = TinyPairs().load()
    rows = training_rows(pairs, teacher, online=True, cached=cached)
    draw = Draw(step=7, dataset="nq", batch=1)
    batch = rows.batch(draw, ALL)
    picked = rows.plan.rows(draw).tolist()
    for role in ("query", "document"):
        texts = [pairs[row][role] for row in picked]
        expected = teacher.tokenization.column("document", max_length=6)(texts)
        assert tokens(batch.texts[role]) == expected.ids
        assert tokens(batch.teacher_texts[role]) == teacher.tokenization(texts, "query")
        assert batch.text_ids[role].tolist() == batch.texts[role].ids().tolist()
        assert batch.texts[role].token_ids.dtype == batch.texts[role].lengths.dtype == torch.int64
    cut = sum(len(pairs[row][role].split()) > 4 for row in picked for role in ("query", "document"))
    assert 0 < cut == batch.cut_texts
    assert (batch.dataset, batch.step, batch.dataset_batch, batch.teacher_vectors) == ("nq", 7, 1, {})


def test_a_part_is_rows_of_the_global_batch(teacher: Teacher) -> None:
    rows = training_rows(TinyPairs().load(), teacher)
    draw = Draw(0, "nq", 0)
    whole, part = rows.batch(draw, ALL), rows.batch(draw, slice(2, 4))
    assert tokens(part.texts["query"]) == tokens(whole.texts["query"])[2:]


def test_teacher_vectors_of_a_batch_are_the_columns_in_float16(teacher: Teacher) -> None:
    vectors = TinyVectors().load()
    rows = training_rows(vectors, teacher, online=True)
    draw = Draw(0, "nq", 2)
    batch = rows.batch(draw, ALL)
    assert batch.teacher_texts == {}
    for role in ("query", "document"):
        found = batch.teacher_vectors[role]
        assert (found.dtype, found.shape) == (torch.float16, (4, TEACHER_DIM))
        assert found.tolist() == [vectors[row][f"{role}_teacher"] for row in rows.plan.rows(draw).tolist()]


def test_columns_that_no_batch_needs_are_not_read(teacher: Teacher) -> None:
    vectors = TinyVectors().load().add_column("note", ["long"] * 12)
    rows = training_rows(vectors, teacher, online=True, roles=("query",))
    kept = {"query", "document", "query_teacher"}
    tokens_of = {f"{column}_{model}" for column in ("query", "document") for model in ("student", "teacher")}
    assert set(rows.rows.column_names) == kept | {f"{name}_{what}" for name in tokens_of for what in ("ids", "cut")}


def test_a_batch_can_be_written_to(teacher: Teacher) -> None:
    rows, draw = training_rows(TinyVectors().load(), teacher), Draw(0, "nq", 0)
    batch, before = rows.batch(draw, ALL), rows.batch(draw, ALL)
    batch.texts["query"].token_ids.zero_()
    batch.teacher_vectors["query"].zero_()
    again = rows.batch(draw, ALL)
    assert torch.equal(again.texts["query"].token_ids, before.texts["query"].token_ids)
    assert torch.equal(again.teacher_vectors["query"], before.teacher_vectors["query"])


NEGATIVES: list[list[str]] = [["a cat"], ["a dog", "red mat"], ["tree", "house", "who"], ["slow dog"]]
PAIRS = {"query": ["the", "a", "cat", "dog"], "document": ["sat", "on", "mat", "red"]}


def in_columns() -> Dataset:
    filled = [[*texts, None, None][:3] for texts in NEGATIVES]
    filled[1] = [None, *NEGATIVES[1]]
    names = ("negative", "negative_2", "negative_10")
    return Dataset.from_dict({**PAIRS, **{name: [row[place] for row in filled] for place, name in enumerate(names)}})


def in_lists() -> Dataset:
    return Dataset.from_dict({**PAIRS, "negatives": NEGATIVES})


def in_short_lists() -> Dataset:
    lists = pa.array([(texts * 2)[:2] for texts in NEGATIVES], pa.list_(pa.string(), 2))
    return Dataset(pa.table({**PAIRS, "negatives": lists}))


def test_lists_of_one_length_are_lists(teacher: Teacher) -> None:
    rows = training_rows(in_short_lists(), teacher, cached=False)
    batch = rows.batch(Draw(0, "nq", 0), ALL)
    assert batch.negative_counts is not None
    assert batch.negative_counts.tolist() == [2, 2, 2, 2]


def test_a_column_of_negatives_may_be_empty(teacher: Teacher) -> None:
    empty = in_columns().remove_columns("negative_10").data.table.append_column("negative_10", pa.nulls(4))
    rows = training_rows(Dataset(empty), teacher, cached=False)
    assert len(rows.batch(Draw(0, "nq", 0), ALL).texts["negatives"]) == 5


@pytest.mark.parametrize("cached", [True, False])
def test_each_column_of_negatives_has_its_own_limit(teacher: Teacher, cached: bool) -> None:
    rows = Dataset.from_dict({**PAIRS, "negative": ["the cat sat on"] * 4, "negative_2": ["a dog sat on"] * 4})
    reader = training_rows(rows, teacher, cached=False).reader
    limits = {"negative": 6, "negative_2": 4}
    own = {column: teacher.tokenization.column("document", max_length=limit) for column, limit in limits.items()}
    reader.student = {**reader.student, **own}
    if cached:
        rows = tokenize_columns(rows, "student", reader.student, origin="tiny")
    found = TrainingRows(rows, reader, MixturePlan({"nq": PlannedSet(4, 4)}, 0)).batch(Draw(0, "nq", 0), ALL)
    assert found.texts["negatives"].lengths.tolist() == [6, 4] * 4


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize("make", [in_columns, in_lists])
def test_negatives_are_ragged_in_columns_as_in_lists(teacher: Teacher, make: Any, cached: bool) -> None:
    rows = training_rows(make(), teacher, cached=cached, online=True, roles=("query", "document", "negatives"))
    draw = Draw(0, "nq", 0)
    picked = rows.plan.rows(draw).tolist()
    batch = rows.batch(draw, ALL)
    flat = [text for row in picked for text in NEGATIVES[row]]
    assert batch.negative_counts is not None
    assert batch.negative_counts.tolist() == [len(NEGATIVES[row]) for row in picked]
    assert tokens(batch.texts["negatives"]) == teacher.tokenization.column("document", max_length=6)(flat).ids
    assert tokens(batch.teacher_texts["negatives"]) == teacher.tokenization(flat, "query")
    assert batch.text_count == 4 + 4 + 7


@pytest.mark.parametrize("lists", [False, True])
def test_teacher_vectors_of_negatives_stand_beside_them(teacher: Teacher, lists: bool) -> None:
    vector_of = {text: [float(place), -1.0] for place, text in enumerate(text for texts in NEGATIVES for text in texts)}
    half = pa.list_(pa.float16(), 2)
    rows = in_lists() if lists else in_columns()
    columns = ["negatives"] if lists else ["negative", "negative_2", "negative_10"]
    for column in columns:
        vectors = [
            [vector_of[text] for text in value] if lists else vector_of.get(value, [9.0, 9.0]) for value in rows[column]
        ]
        table = pa.table({f"{column}_teacher": pa.array(vectors, pa.list_(half) if lists else half)})
        rows = Dataset(pa.concat_tables([rows.data.table]).append_column(table.field(0), table.column(0)))
    reader = training_rows(rows, teacher, roles=("negatives",))
    picked = reader.plan.rows(Draw(0, "nq", 0)).tolist()
    found = reader.batch(Draw(0, "nq", 0), ALL).teacher_vectors["negatives"]
    assert found.tolist() == [vector_of[text] for row in picked for text in NEGATIVES[row]]


@pytest.mark.parametrize("vector", [[float("nan"), 0.0], None, [1.0]])
def test_a_vector_that_cannot_be_used_names_the_set_and_the_row(teacher: Teacher, vector: Any) -> None:
    vectors = [[1.0, 2.0], [3.0, 4.0], vector, [5.0, 6.0]]
    rows = Dataset.from_dict({**PAIRS, "query_teacher": vectors})
    reader = training_rows(rows, teacher, roles=("query",))
    row = "2" if vector is None or len(vector) == 2 else "[0-3]"  # nobody knows which of two lengths is wrong
    with pytest.raises(ValueError, match=f"The data set 'nq', row {row}: .*column 'query_teacher'"):
        reader.batch(Draw(0, "nq", 0), ALL)


def test_codes_with_a_scale_are_read_as_vectors(teacher: Teacher) -> None:
    codes = pa.array([[127, -127], [64, 0], [1, 2], [0, 0]], pa.list_(pa.int8(), 2))
    scales = pa.array([0.5, 1.0, 2.0, 1.0], pa.float32())
    table = Dataset.from_dict(PAIRS).data.table
    rows = Dataset(table.append_column("query_teacher", codes).append_column("query_teacher_scale", scales))
    reader = training_rows(rows, teacher, roles=("query",))
    picked = reader.plan.rows(Draw(0, "nq", 0)).tolist()
    found = reader.batch(Draw(0, "nq", 0), ALL).teacher_vectors["query"]
    expected = [[63.5, -63.5], [64.0, 0.0], [2.0, 4.0], [0.0, 0.0]]
    assert found.tolist() == [expected[row] for row in picked]


def test_scores_come_with_scored_pairs(teacher: Teacher) -> None:
    scored = Dataset.from_dict({"text1": PAIRS["query"], "text2": PAIRS["document"], "score": [1, 5, 2, 0]})
    rows = training_rows(scored, teacher)
    picked = rows.plan.rows(Draw(0, "nq", 0)).tolist()
    batch = rows.batch(Draw(0, "nq", 0), ALL)
    assert batch.score is not None
    assert (batch.score.dtype, batch.score.tolist()) == (torch.float32, [[1, 5, 2, 0][row] for row in picked])
    texts = [PAIRS["document"][row] for row in picked]
    assert tokens(batch.texts["document"]) == teacher.tokenization(texts, "document")


@pytest.mark.parametrize("labels", [["x", "y", "x", "z"], [0, 1, 0, 2], [True, False, True, False]])
def test_labels_are_numbers_that_are_equal_where_they_are(teacher: Teacher, labels: list[Any]) -> None:
    rows = training_rows(Dataset.from_dict({"text": PAIRS["query"], "label": labels}), teacher)
    picked = rows.plan.rows(Draw(0, "nq", 0)).tolist()
    found = rows.batch(Draw(0, "nq", 0), ALL).label
    assert found is not None
    assert found.dtype == torch.int64
    same = [[labels[a] == labels[b] for a in picked] for b in picked]
    assert (found[:, None] == found[None]).tolist() == same


def test_tuples_read_texts_and_labels_of_the_rows_that_are_drawn(teacher: Teacher) -> None:
    texts = ["the cat", "a dog", "red mat", "blue house", "green tree", "slow dog"]
    labelled = Dataset.from_dict({"text": texts, "label": ["x", "y", "x", "y", "x", "y"]})
    layout = LabelTuples(negatives=2).layout(labelled, "tiny")
    rows = training_rows(labelled, teacher, layout=layout)
    label_of = {tuple(teacher.tokenization([text], "document")[0]): row % 2 for row, text in enumerate(texts)}
    first, second = (rows.batch(Draw(step, "nq", 0), ALL) for step in (0, 1))
    assert first.label is not None
    assert first.negatives_label is not None
    assert first.negative_counts is not None
    assert first.negative_counts.tolist() == [2, 2, 2, 2]
    labels = first.label.tolist()
    for role in ("query", "document"):
        assert [label_of[tuple(ids)] for ids in tokens(first.texts[role])] == labels
    assert [label_of[tuple(ids)] for ids in tokens(first.texts["negatives"])] == first.negatives_label.tolist()
    assert first.negatives_label.tolist() == [1 - label for label in labels for _ in range(2)]
    assert tokens(first.texts["query"]) == tokens(second.texts["query"])  # the plan's rows of this batch
    assert tokens(first.texts["negatives"]) != tokens(second.texts["negatives"])  # of another step


def repeated(count: int) -> Dataset:
    """Rows of which every second has a query, or a document, of another."""
    return Dataset.from_dict(
        {
            "query": [f"q{row // 2 if row % 4 < 2 else row}" for row in range(count)],
            "document": [f"d{row // 2 if row % 4 >= 2 else row}" for row in range(count)],
        }
    )


@pytest.mark.parametrize("step", range(6))
def test_equal_texts_can_be_kept_out_of_a_batch(teacher: Teacher, step: int) -> None:
    rows = training_rows(repeated(32), teacher, batch_size=8, distinct_texts=True, cached=False)
    draw = Draw(step, "nq", step)
    numbers = rows._distinct(draw)
    pairs = repeated(32)[numbers.tolist()]
    assert len(set(pairs["query"])) == len(set(pairs["document"])) == len(numbers) == 8
    # those of the plan stay, in their order, unless they repeat a text
    planned = rows.plan.rows(draw).tolist()
    kept = [row for row in numbers.tolist() if row in planned]
    assert kept == [row for row in planned if row in kept]
    assert rows._distinct(draw).tolist() == numbers.tolist()


def test_a_set_of_too_many_equal_texts_is_an_error(teacher: Teacher) -> None:
    same = Dataset.from_dict({"query": [f"q{row}" for row in range(8)], "document": ["d0", "d1"] * 4})
    rows = training_rows(same, teacher, distinct_texts=True)
    with pytest.raises(ValueError, match="'nq' has too many equal texts: of 32 rows only 2 have texts of their own"):
        rows.batch(Draw(0, "nq", 0), ALL)


def test_of_tuples_the_anchors_are_distinct(teacher: Teacher) -> None:
    labelled = Dataset.from_dict(
        {"text": ["cat", "cat", "dog", "dog", "red", "mat"], "label": ["x", "y", "x", "y", "x", "y"]}
    )
    layout = LabelTuples(negatives=1).layout(labelled, "tiny")
    rows = training_rows(labelled, teacher, layout=layout, distinct_texts=True)
    for step in range(5):
        batch = rows.batch(Draw(step, "nq", step), ALL)
        assert len(set(batch.text_ids["query"].tolist())) == 4


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
