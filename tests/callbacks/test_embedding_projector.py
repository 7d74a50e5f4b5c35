from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from google.protobuf import text_format
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig

from lightning_jv5.callbacks import EmbeddingProjector
from lightning_jv5.callbacks.embedding_projector import sampled_rows
from tests.callbacks.tiny_run import DOCUMENTS, QUERIES, tiny_datamodule, tiny_module, tiny_task, tiny_trainer
from tests.tasks.labelled_texts import one_of_each, topic


def read(folder: Path) -> tuple[torch.Tensor, list[list[str]]]:
    vectors = torch.tensor(np.loadtxt(folder / "vectors.tsv", delimiter="\t", ndmin=2), dtype=torch.float32)
    return vectors, [line.split("\t") for line in (folder / "metadata.tsv").read_text("utf-8").splitlines()]


def test_every_text_of_a_task_is_there_with_its_role(tmp_path: Path) -> None:
    module = tiny_module(tmp_path, teacher=False)
    trainer = tiny_trainer(tmp_path, [EmbeddingProjector("small")])
    trainer.validate(module, datamodule=tiny_datamodule(), verbose=False)
    vectors, metadata = read(tmp_path / "projector" / "val.small.step-0")
    expected = torch.cat([module.encode(QUERIES, "query"), module.encode(DOCUMENTS, "document")])
    torch.testing.assert_close(vectors, expected, atol=1e-5, rtol=1e-4)
    assert metadata[0] == ["text", "role", "row"]
    assert metadata[1:4] == [[text, "query", str(row)] for row, text in enumerate(QUERIES)]
    assert metadata[4:] == [[text, "document", str(row)] for row, text in enumerate(DOCUMENTS)]


@pytest.mark.parametrize("name", ["topics", "intents"])
def test_a_sample_comes_with_its_labels(tmp_path: Path, name: str) -> None:
    module, task = tiny_module(tmp_path, teacher=False), one_of_each()[name]
    trainer = tiny_trainer(tmp_path, [EmbeddingProjector(name, max_texts=20, label="topic")])
    trainer.test(module, datamodule=tiny_datamodule(test={name: task}), verbose=False)
    vectors, metadata = read(tmp_path / "projector" / f"test.{name}.step-0")
    assert metadata[0] == ["text", "topic", "role", "row"]
    texts = [row[0] for row in metadata[1:]]
    assert len(set(texts)) == 20
    assert [row[1] for row in metadata[1:]] == [topic(text) for text in texts]
    torch.testing.assert_close(vectors, module.encode(texts, "document"), atol=1e-5, rtol=1e-4)


def test_fit_writes_the_last_validation_and_tensorboard_finds_it(tmp_path: Path) -> None:
    logger = TensorBoardLogger(tmp_path, name="log")
    trainer = tiny_trainer(
        tmp_path,
        [EmbeddingProjector("small")],
        logger=logger,
        max_steps=4,
        val_check_interval=1,
        check_val_every_n_epoch=None,
    )
    trainer.fit(tiny_module(tmp_path, teacher=False), datamodule=tiny_datamodule())
    trainer.validate(tiny_module(tmp_path, teacher=False), datamodule=tiny_datamodule(), verbose=False)
    names = sorted(path.name for path in (tmp_path / "projector").iterdir())
    assert names == ["val.small.step-4"]
    config = ProjectorConfig()
    text_format.Parse((Path(logger.log_dir) / "projector_config.pbtxt").read_text("utf-8"), config)
    assert [embedding.tensor_name for embedding in config.embeddings] == names
    for path in (config.embeddings[0].tensor_path, config.embeddings[0].metadata_path):
        assert (Path(logger.log_dir) / path).is_file()


def test_without_tensorboard_there_are_the_files_alone(tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path, [EmbeddingProjector("small", max_texts=4)], logger=CSVLogger(tmp_path, name="log"))
    trainer.validate(tiny_module(tmp_path, teacher=False), datamodule=tiny_datamodule(), verbose=False)
    assert {path.name for path in (tmp_path / "projector" / "val.small.step-0").iterdir()} == {
        "vectors.tsv",
        "metadata.tsv",
    }
    assert not list(tmp_path.rglob("projector_config.pbtxt"))


def test_a_pass_that_is_cut_short_writes_nothing(tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path, [EmbeddingProjector("small")], limit_val_batches=1)
    trainer.validate(tiny_module(tmp_path, teacher=False), datamodule=tiny_datamodule(), verbose=False)
    assert not (tmp_path / "projector").exists()


def test_the_sample_is_the_same_every_time_and_of_all_parts() -> None:
    task = tiny_task()
    task.prepare()
    first, second = (sampled_rows(task, 6) for _ in range(2))
    assert {role: rows.tolist() for role, rows in first.items()} == {
        role: rows.tolist() for role, rows in second.items()
    }
    assert list(first) == ["query", "document"]
    assert sum(map(len, first.values())) == 6
    assert all(rows.tolist() == sorted(set(rows.tolist())) for rows in first.values())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_texts": 0}, "Got max_texts 0; need at least 1"),
        ({"label": "role"}, "Got label 'role', the name of another column"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EmbeddingProjector("small", **settings)


def test_a_task_that_is_not_there_is_refused(tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path, [EmbeddingProjector("other")])
    with pytest.raises(ValueError, match=r"got the task 'other' and evaluation tasks \['small'\]; need one of them"):
        trainer.validate(tiny_module(tmp_path, teacher=False), datamodule=tiny_datamodule(), verbose=False)
