import json
from pathlib import Path

import pytest

from lightning_jv5.callbacks import IsotropyEvaluation
from tests.callbacks.tiny_run import DOCUMENTS, QUERIES, tiny_datamodule, tiny_module, tiny_task, tiny_trainer
from tests.metrics.test_isotropy import slow_isotropy
from tests.tasks.labelled_texts import one_of_each

MEASURES = ("mean_cosine", "effective_rank", "balanced_bits")


@pytest.mark.parametrize("stage", ["val", "test"])
def test_tasks_and_their_parts_are_logged_and_drawn(tmp_path: Path, stage: str) -> None:
    module, topics = tiny_module(tmp_path, teacher=False), one_of_each()["topics"]
    tasks = {"small": tiny_task(), "topics": topics}
    trainer = tiny_trainer(tmp_path, [IsotropyEvaluation()])
    run = trainer.validate if stage == "val" else trainer.test
    run(module, datamodule=tiny_datamodule(val=tasks, test=tasks), verbose=False)
    queries, documents = module.encode(QUERIES, "query"), module.encode(DOCUMENTS, "document")
    expected = {
        "small/isotropy": queries.new_tensor([]).new_empty(0, queries.shape[1]),
        "small/isotropy/query": queries,
        "small/isotropy/document": documents,
        "topics/isotropy": module.encode(topics.parts()[0].texts, "document"),
    }
    expected["small/isotropy"] = documents.new_tensor([*queries.tolist(), *documents.tolist()])
    for name, embeddings in expected.items():
        for measure, value in zip(MEASURES, slow_isotropy(embeddings), strict=True):
            assert float(trainer.callback_metrics[f"{stage}/{name}/{measure}"]) == pytest.approx(value, abs=1e-4)
    logged = {name for name in trainer.callback_metrics if "/isotropy/" in name}
    assert logged == {f"{stage}/{name}/{measure}" for name in expected for measure in MEASURES}
    drawn = json.loads((tmp_path / "figures" / f"{stage}.isotropy.small.step-0.json").read_text())
    assert [(part, found["texts"]) for part, found in drawn["parts"].items()] == [
        ("all texts", 10),
        ("query", 3),
        ("document", 7),
    ]
    assert {path.name for path in (tmp_path / "figures").glob("*.png")} == {
        f"{stage}.isotropy.small.step-0.png",
        f"{stage}.isotropy.topics.step-0.png",
    }


def test_a_second_pass_begins_anew_and_a_part_of_one_is_not_logged(tmp_path: Path) -> None:
    module, callback = tiny_module(tmp_path, teacher=False), IsotropyEvaluation()
    values = []
    for _ in range(2):
        trainer = tiny_trainer(tmp_path, [callback])
        trainer.validate(module, datamodule=tiny_datamodule(), verbose=False)
        values.append(trainer.callback_metrics["val/small/isotropy/mean_cosine"])
    assert values[0] == values[1]
    cut = tiny_trainer(tmp_path, [callback], limit_val_batches=1)
    cut.validate(module, datamodule=tiny_datamodule(), verbose=False)
    assert not [name for name in cut.callback_metrics if "isotropy" in name]
