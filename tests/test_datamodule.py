import itertools
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_jv5 import EmbeddingDataModule
from lightning_jv5.tasks import ReadyRetrieval, RetrievalData
from tests.tiny_data import Recorder, TinyPairs, TinyTexts, quiet_trainer, tiny_data, tiny_module, tiny_task


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIGHTNING_JV5_CACHE", str(tmp_path / "cache"))


def fit(folder: Path, data: EmbeddingDataModule, **settings: Any) -> Recorder:
    recorder = Recorder()
    trainer = quiet_trainer(folder, **{"max_steps": 1, "limit_val_batches": 0, "callbacks": [recorder], **settings})
    trainer.fit(tiny_module(folder), data)
    return recorder


@pytest.mark.parametrize("workers", [0, 2])
def test_predict_gives_all_rows_in_order(tmp_path: Path, workers: int) -> None:
    module = tiny_module(tmp_path)
    data = EmbeddingDataModule(predict=TinyTexts(7), evaluation_batch_size=3, num_workers=workers)
    embedded = quiet_trainer(tmp_path).predict(module, data)
    assert embedded is not None
    assert torch.cat([part.rows for part in embedded]).tolist() == list(range(7))
    expected = module.encode(TinyTexts(7).load()["text"][:], "document")
    torch.testing.assert_close(torch.cat([part.embeddings for part in embedded]), expected)
    assert {(part.task, part.role) for part in embedded} == {("predict", "document")}


@pytest.mark.parametrize(("column", "role"), [("query", "query"), ("query", "document"), ("document", "document")])
def test_predict_takes_the_column_that_is_there_in_the_role_that_is_asked_for(
    tmp_path: Path, column: str, role: Any
) -> None:
    module = tiny_module(tmp_path)
    embedded = quiet_trainer(tmp_path).predict(
        module, EmbeddingDataModule(predict=TinyTexts(3, column), predict_role=role)
    )
    expected = module.encode(TinyTexts(3, column).load()[column][:], role)
    torch.testing.assert_close(embedded[0].embeddings, expected)


@pytest.mark.parametrize("workers", [0, 2])
def test_two_epochs_train_on_two_permutations(tmp_path: Path, workers: int) -> None:
    recorder = fit(tmp_path, tiny_data(num_workers=workers), max_steps=-1, max_epochs=2)
    assert len(recorder.tokens) == 6
    first, second = (sorted(itertools.chain(*recorder.tokens[part])) for part in (slice(3), slice(3, 6)))
    assert first == second  # 3 batches of 4 are all 12 rows
    assert recorder.tokens[:3] != recorder.tokens[3:]
    assert recorder.tokens == fit(tmp_path, tiny_data(), max_steps=6).tokens


def test_limited_epochs_go_on_through_the_rows(tmp_path: Path) -> None:
    whole = fit(tmp_path, tiny_data(), max_steps=6)
    limited = fit(tmp_path, tiny_data(), max_steps=6, limit_train_batches=2)
    assert limited.tokens == whole.tokens


def test_another_seed_is_another_order(tmp_path: Path) -> None:
    assert fit(tmp_path, tiny_data(seed=1)).tokens != fit(tmp_path, tiny_data()).tokens


def test_a_second_fit_without_a_checkpoint_begins_at_the_beginning(tmp_path: Path) -> None:
    module, data, recorders = tiny_module(tmp_path), tiny_data(), [Recorder(), Recorder(), Recorder()]
    trainer = quiet_trainer(tmp_path, max_steps=2, limit_val_batches=0, callbacks=[recorders[0]])
    trainer.fit(module, data)
    trainer.save_checkpoint(tmp_path / "two.ckpt")
    for recorder, checkpoint in zip(recorders[1:], [tmp_path / "two.ckpt", None], strict=True):
        trainer = quiet_trainer(tmp_path, max_steps=4, limit_val_batches=0, callbacks=[recorder])
        trainer.fit(module, data, ckpt_path=checkpoint)
    assert recorders[2].tokens == recorders[0].tokens + recorders[1].tokens


def test_texts_alone_are_queries(tmp_path: Path) -> None:
    from lightning_jv5.losses import EmbeddingDistillation
    from lightning_jv5.models import Projection
    from tests.tiny_data import TEACHER_DIM, tiny_teacher

    objective = EmbeddingDistillation(Projection(32, TEACHER_DIM), roles=["query"])
    module = tiny_module(tmp_path, objective=objective, teacher=tiny_teacher(tmp_path))
    recorder = Recorder()
    trainer = quiet_trainer(tmp_path, max_steps=1, limit_val_batches=0, callbacks=[recorder])
    trainer.fit(module, tiny_data(train=TinyTexts()))
    assert 0 < recorder.losses[0] < 2


def test_validation_reads_queries_then_documents_of_each_task_longest_first(tmp_path: Path) -> None:
    data = tiny_data(val={"first": tiny_task(), "second": tiny_task(9)})
    trainer = quiet_trainer(tmp_path, fast_dev_run=True)
    trainer.validate(tiny_module(tmp_path), data, verbose=False)
    batches = [list(loader) for loader in data.val_dataloader()]
    assert [(loader[0].task, loader[0].role) for loader in batches] == [
        ("first", "query"),
        ("first", "document"),
        ("second", "query"),
        ("second", "document"),
    ]
    rows = [row for batch in batches[3] for row in batch.rows.tolist()]
    texts = data.val["second"].parts()[1].texts
    assert rows == sorted(range(9), key=lambda row: len(texts[row]), reverse=True)
    lengths = torch.cat([batch.texts.lengths for batch in batches[3]])
    assert torch.equal(lengths, lengths.sort(descending=True).values)  # words of one letter aside, of tokens too


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"train": None}, "Got no training data; set data.train to a source"),
        ({"train": TinyTexts(column="document")}, "TinyTexts has the columns document; training needs 'query'"),
        ({"batch_size": 13}, "batch size of 13 for the data set 'train' of 12 rows"),
    ],
)
def test_training_data_that_do_not_fit_are_refused(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit(tmp_path, tiny_data(**settings))


def test_what_a_stage_needs_and_lacks_is_named(tmp_path: Path) -> None:
    trainer, module = quiet_trainer(tmp_path), tiny_module(tmp_path)
    with pytest.raises(ValueError, match=r"Got nothing to test on; set data\.test"):
        trainer.test(module, tiny_data())
    with pytest.raises(ValueError, match=r"Got nothing to validate on; set data\.val"):
        trainer.validate(module, tiny_data(val={}))
    with pytest.raises(ValueError, match=r"Got nothing to encode; set data\.predict"):
        trainer.predict(module, tiny_data())
    with pytest.raises(ValueError, match="TinyTexts has the columns label; predict needs 'text'"):
        trainer.predict(module, tiny_data(predict=TinyTexts(column="label")))
    with pytest.raises(ValueError, match="without a trainer; pass it to one"):
        tiny_data().setup("fit")


@pytest.mark.parametrize("name", ["a/b", "", "a b"])
def test_a_task_name_must_be_a_log_key(name: str) -> None:
    for stage in ("val", "test"):
        with pytest.raises(ValueError, match=f"evaluation task named '{name}'; the name becomes a log key"):
            EmbeddingDataModule(**{stage: {name: tiny_task()}})


@pytest.mark.parametrize("size", ["batch_size", "evaluation_batch_size"])
def test_sizes_are_positive(size: str) -> None:
    with pytest.raises(ValueError, match=f"Got {size} 0; need at least 1"):
        EmbeddingDataModule(TinyPairs(), **{size: 0})


def test_evaluation_tasks_are_read_once_per_machine_before_every_process_reads_them(tmp_path: Path) -> None:
    read: list[str] = []

    class Noting(ReadyRetrieval):
        def load(self) -> RetrievalData:
            read.append("load")
            return super().load()

    data = tiny_data(val={"first": Noting(tiny_task()._ready)})
    trainer = quiet_trainer(tmp_path, fast_dev_run=True)
    data.setup = lambda stage: read.append("setup") or type(data).setup(data, stage)  # type: ignore[method-assign, func-returns-value]
    trainer.validate(tiny_module(tmp_path), data, verbose=False)
    assert read == ["load", "setup"]
