import logging
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

from lightning_jv5.data.label_tuples import LabelTuples
from lightning_jv5.data.tokenized import tokenize_columns
from lightning_jv5.data.training_set import TrainingSet, report_cut_texts, sample_fingerprint
from lightning_jv5.models.tokenization import Tokenization, load_tokenizer
from lightning_jv5.rebuildable import describe, rebuild
from tests.tiny_data import TinyPairs, TinyTexts
from tests.tiny_models import save_tiny_tokenizer


@pytest.fixture
def tokenization(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tokenization:
    monkeypatch.setenv("LIGHTNING_JV5_CACHE", str(tmp_path / "cache"))
    prompts = {"query": "query : ", "document": "document : "}
    return Tokenization(load_tokenizer(save_tiny_tokenizer(tmp_path)), prompts=prompts, max_length=16, append_end=True)


def columns_of(training_set: TrainingSet, tokenization: Tokenization) -> dict[str, Any]:
    layout = training_set.layout(training_set.source.load(), "pairs")
    return training_set.tokenizations(layout, tokenization, "pairs")


def test_a_column_has_the_prompt_of_its_role_unless_told_otherwise(tokenization: Tokenization) -> None:
    found = columns_of(TrainingSet(TinyPairs()), tokenization)
    assert {name: (one.prompt, one.max_length) for name, one in found.items()} == {
        "query": ("query : ", 16),
        "document": ("document : ", 16),
    }
    settings: dict[str, Any] = {"roles": {"query": "document"}, "prompts": {"document": "the "}, "max_length": 8}
    found = columns_of(TrainingSet(TinyPairs(), **settings), tokenization)
    assert {name: (one.prompt, one.max_length) for name, one in found.items()} == {
        "query": ("document : ", 8),
        "document": ("the ", 8),
    }
    found = columns_of(TrainingSet(TinyPairs(), max_length={"document": 9}), tokenization)
    assert {name: one.max_length for name, one in found.items()} == {"query": 16, "document": 9}


def test_the_teachers_prompt_is_that_of_the_columns_role() -> None:
    training_set = TrainingSet(TinyPairs(), roles={"query": "document"})
    assert training_set.teacher_prompts(["query", "document"]) == {"query": "document", "document": "document"}
    assert TrainingSet(TinyPairs()).teacher_prompts(["query"]) == {"query": "query"}


@pytest.mark.parametrize("setting", ["roles", "prompts", "max_length"])
def test_a_setting_for_a_column_that_is_not_there_names_the_nearest(tokenization: Tokenization, setting: str) -> None:
    value = {"roles": "document", "prompts": "the ", "max_length": 8}[setting]
    with pytest.raises(ValueError, match=f"Got {setting} for the column 'querry' of the data set 'pairs'.*'query'"):
        columns_of(TrainingSet(TinyPairs(), **{setting: {"querry": value}}), tokenization)


def test_a_set_can_be_described_and_rebuilt() -> None:
    training_set = TrainingSet(TinyPairs(5), batch_size=4, prompts={"query": "the "}, tuples=LabelTuples(3))
    again = rebuild(describe(training_set))
    assert (again.source.rows, again.batch_size, again.tuples.negatives) == (5, 4, 3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 0}, "Got batch_size 0 of a data set; need at least 1"),
        ({"shuffle_rows": -1}, "Got shuffle_rows -1; need 0"),
        ({"tokens": "never"}, "Got tokens 'never'; need 'cached' or 'as_read'"),
        ({"streaming": True, "tuples": LabelTuples()}, "Got tuples of a stream"),
        ({"roles": {"query": "passage"}}, "Got roles 'passage'; need one of query, document"),
    ],
)
def test_settings_are_checked(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainingSet(TinyTexts(), **settings)


def test_the_fingerprint_is_of_what_the_rows_hold() -> None:
    texts = [f"t{row}" for row in range(1000)]
    prints = {
        sample_fingerprint(Dataset.from_dict({"text": changed}), ["text"])
        for changed in (texts, texts[:-1], texts[::-1], ["x", *texts[1:]], [text.upper() for text in texts])
    }
    assert len(prints) >= 4  # a single changed row of a thousand may pass
    assert sample_fingerprint(Dataset.from_dict({"text": texts, "id": texts}), ["text"]) in prints


def test_texts_that_are_cut_are_counted(tokenization: Tokenization, caplog: pytest.LogCaptureFixture) -> None:
    rows = Dataset.from_dict({"query": ["a cat", "the dog sat on a mat"], "document": ["a", "b"]})
    columns = {name: tokenization.column("document", max_length=6) for name in rows.column_names}
    rows = tokenize_columns(rows, "student", columns, origin="pairs")
    with caplog.at_level(logging.WARNING):
        report_cut_texts(rows, columns, "pairs")
    assert "pairs: 1 texts in the 2 rows of 'query' are longer than 6 tokens and are cut there." in caplog.text
    assert "'document'" not in caplog.text
