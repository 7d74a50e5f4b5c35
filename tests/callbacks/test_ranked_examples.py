import json
from pathlib import Path

import pytest
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lightning_jv5.callbacks import RankedExamples
from lightning_jv5.callbacks.ranked_examples import examples_list
from tests.callbacks.tiny_run import DOCUMENTS, QUERIES, tiny_datamodule, tiny_module, tiny_task, tiny_trainer
from tests.tasks.labelled_texts import one_of_each


def test_examples_are_what_ranks_first(tmp_path: Path) -> None:
    module = tiny_module(tmp_path, teacher=False)
    logger = TensorBoardLogger(tmp_path, name="log")
    trainer = tiny_trainer(tmp_path, [RankedExamples(count=2, top=3)], logger=logger)
    trainer.validate(module, datamodule=tiny_datamodule(), verbose=False)
    shown = json.loads((tmp_path / "texts" / "val.small.examples.step-0.json").read_text())
    scores = module.encode(QUERIES, "query") @ module.encode(DOCUMENTS, "document").T
    assert [example["query"] for example in shown] == QUERIES[:2]
    for example, row in zip(shown, scores, strict=False):
        assert [document["text"] for document in example["documents"]] == [
            DOCUMENTS[best] for best in row.topk(3).indices
        ]
        assert [document["score"] for document in example["documents"]] == pytest.approx(row.topk(3).values.tolist())
    events = EventAccumulator(logger.log_dir)
    events.Reload()
    [panel] = events.Tensors("val/small/examples/text_summary")
    markdown = (tmp_path / "texts" / "val.small.examples.step-0.md").read_text()
    assert panel.tensor_proto.string_val[0].decode() == markdown.rstrip("\n")


def test_examples_of_another_view_rank_as_it_does(tmp_path: Path) -> None:
    module = tiny_module(tmp_path, teacher=False)
    tasks = {"small": tiny_task(), "topics": one_of_each()["topics"]}
    callbacks = [RankedExamples(count=2, dim=8, precision="binary"), RankedExamples(precision="asymmetric")]
    trainer = tiny_trainer(tmp_path, callbacks)
    trainer.validate(module, datamodule=tiny_datamodule(val=tasks), verbose=False)
    shown = json.loads((tmp_path / "texts" / "val.small.examples.dim8_binary.step-0.json").read_text())
    signs = [torch.where(module.encode(*of)[:, :8] >= 0, 1.0, -1.0) for of in ((QUERIES, "query"), (DOCUMENTS,))]
    agreement = signs[0] @ signs[1].T
    for example, row in zip(shown, agreement, strict=False):
        assert [document["score"] for document in example["documents"]] == row.topk(3).values.tolist()
    assert {path.name for path in (tmp_path / "texts").glob("*.md")} == {
        "val.small.examples.dim8_binary.step-0.md",
        "val.small.examples.asymmetric.step-0.md",
    }


def test_texts_cannot_break_the_list() -> None:
    document = {"text": "a | b\n<b>*c*</b> " + 200 * "x", "score": 0.5, "grade": None, "relevant": False}
    lines = examples_list([{"query": "", "documents": [document, document]}]).splitlines()
    assert lines[:2] == ["**(empty)**", ""]
    assert lines[2].startswith(r"1. 0.500 a \| b &lt;b&gt;\*c\*&lt;/b&gt; xxx")
    assert lines[2].endswith("x…")
    assert lines[3].startswith("2. 0.500 ")


def test_a_count_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match=r"Got count 0 and top 3; need at least 1"):
        RankedExamples(count=0)


def test_a_pass_that_is_cut_short_shows_nothing(tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path, [RankedExamples()], limit_val_batches=1)
    trainer.validate(tiny_module(tmp_path, teacher=False), datamodule=tiny_datamodule(), verbose=False)
    assert not (tmp_path / "texts").exists()
