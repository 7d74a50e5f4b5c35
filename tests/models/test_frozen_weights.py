from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_jv5 import EmbeddingModule
from lightning_jv5.callbacks import AdapterAveraging
from lightning_jv5.losses import EmbeddingDistillation, InfoNCE, LearnableTemperature, Objective, Term
from lightning_jv5.models import Embedder, LoRA, Projection
from lightning_jv5.models.fingerprint import fingerprint_of
from lightning_jv5.models.frozen_weights import frozen_weights
from tests.models.tiny_adapters import fill_adapter, write_adapter
from tests.tiny_data import TEACHER_DIM, quiet_trainer, tiny_data, tiny_student, tiny_task
from tests.tiny_models import (
    TEXTS,
    save_tiny_backbone,
    save_tiny_sentence_transformer,
    save_tiny_tokenizer,
    tiny_config,
)

MB = 1_000_000


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIGHTNING_JV5_CACHE", str(tmp_path / "cache"))


def make(path: str, start: int = 0, **options: Any) -> EmbeddingModule:
    """A module with an adapter, a temperature and a projection to train; ``start`` seeds them."""
    torch.manual_seed(start)
    student = Embedder(path, adapter=LoRA("retrieval", rank=4, dropout=0.0), **{"pooling": "mean", **options})
    fill_adapter(student.backbone, "retrieval", start)
    objective = Objective(
        {
            "contrast": Term(InfoNCE(LearnableTemperature(0.05))),
            "distill": Term(EmbeddingDistillation(Projection(student.dim, TEACHER_DIM))),
        }
    )
    return EmbeddingModule(student, objective, lr=1e-3)


def trained(module: EmbeddingModule, folder: Path, *callbacks: Any, steps: int = 2) -> Path:
    trainer = quiet_trainer(folder, max_steps=steps, limit_val_batches=0, callbacks=[*callbacks])
    trainer.fit(module, tiny_data())
    trainer.save_checkpoint(folder / "one.ckpt")
    return folder / "one.ckpt"


def trainable(module: EmbeddingModule) -> dict[str, torch.Tensor]:
    return {name: weights for name, weights in module.named_parameters() if weights.requires_grad}


def tensors_in(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else []
    return [tensor for part in parts for tensor in tensors_in(part)]


def test_a_checkpoint_holds_what_is_trained_and_nothing_else(tmp_path: Path) -> None:
    module = make(save_tiny_sentence_transformer(tmp_path / "model", dense=32), pooling=None)
    path = trained(module, tmp_path)
    checkpoint = torch.load(path, weights_only=True)
    own = trainable(module)
    assert checkpoint["state_dict"].keys() == own.keys()
    assert all(torch.equal(checkpoint["state_dict"][name], weights) for name, weights in own.items())
    moments = tensors_in(checkpoint["optimizer_states"])
    assert sum(tensor.numel() for tensor in moments) <= 2 * sum(w.numel() for w in own.values()) + len(own)


def test_a_checkpoint_takes_twelve_bytes_of_each_trained_number(tmp_path: Path) -> None:
    big = save_tiny_backbone(tmp_path / "model", hidden_size=128, intermediate_size=2048, vocab_size=20_000)
    module = make(big)
    numbers = sum(weights.numel() for weights in trainable(module).values())
    frozen = sum(weights.numel() for weights in module.parameters()) - numbers
    path = trained(module, tmp_path)
    assert path.stat().st_size <= 12 * numbers + MB
    assert 4 * frozen > 5 * (12 * numbers + MB)  # so that it would not be if the base were in it
    averaging = trained(make(big), tmp_path / "averaged", AdapterAveraging(ema_decay=0.5))
    assert averaging.stat().st_size <= 16 * numbers + MB
    (average,) = (tmp_path / "averaged").rglob("averaged.ckpt")
    assert average.stat().st_size <= 4 * numbers + MB
    assert torch.isfinite(EmbeddingModule.load_from_checkpoint(average).encode(TEXTS)).all()


def test_a_module_is_restored_from_its_checkpoint_exactly(tmp_path: Path) -> None:
    module = make(save_tiny_backbone(tmp_path / "model"))
    path = trained(module, tmp_path)
    again = EmbeddingModule.load_from_checkpoint(path)
    assert again.student.adapter == module.student.adapter
    state = again.state_dict()
    assert state.keys() == module.state_dict().keys()
    assert all(torch.equal(state[name], weights) for name, weights in module.state_dict().items())
    assert torch.equal(again.encode(TEXTS, "query"), module.encode(TEXTS, "query"))


def test_a_run_may_go_on_from_it_and_validate_it(tmp_path: Path) -> None:
    model = save_tiny_backbone(tmp_path / "model")
    module = make(model)
    trainer = quiet_trainer(tmp_path, max_steps=3)
    trainer.fit(module, tiny_data())
    expected = {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("val/")}
    assert expected
    trainer.save_checkpoint(tmp_path / "whole.ckpt")
    part = trained(make(model), tmp_path, steps=2)
    other = make(model, start=1)
    resumed = quiet_trainer(tmp_path, max_steps=3)
    resumed.fit(other, tiny_data(), ckpt_path=part)
    assert all(torch.equal(weights, trainable(other)[name]) for name, weights in trainable(module).items())
    for function in ("validate", "test"):
        validated = make(model, start=2)
        data = tiny_data(**({"test": {"tiny": tiny_task()}} if function == "test" else {}))
        trainer = quiet_trainer(tmp_path)
        getattr(trainer, function)(validated, data, ckpt_path=tmp_path / "whole.ckpt", verbose=False)
        scores = {name.replace("test/", "val/"): float(value) for name, value in trainer.callback_metrics.items()}
        assert scores == expected
        assert torch.equal(validated.encode(TEXTS), module.encode(TEXTS))


@pytest.mark.parametrize("change", ["weights", "layers", "adapter"])
def test_on_another_base_it_is_refused(tmp_path: Path, change: str) -> None:
    path = trained(make(save_tiny_backbone(tmp_path / "model")), tmp_path)
    options: dict[str, Any] = {"adapter": LoRA("retrieval", rank=4), "pooling": "mean"}
    model = str(tmp_path / "model")
    if change == "weights":
        model = save_tiny_backbone(tmp_path / "other", seed=1)
    elif change == "layers":
        options["layers"] = [0]
    else:
        options["adapter"] = None
    student = Embedder(model, **options)
    message = "holds an adapter of other frozen weights than those of this student, from .*Give the student the path"
    with pytest.raises(ValueError, match=message):
        EmbeddingModule.load_from_checkpoint(path, student=student)
    other = EmbeddingModule(student, make(str(tmp_path / "model")).objective, lr=1e-3)
    with pytest.raises(ValueError, match=message):
        quiet_trainer(tmp_path, max_steps=3).fit(other, tiny_data(), ckpt_path=path)
    with pytest.raises(ValueError, match=message):
        quiet_trainer(tmp_path).validate(other, tiny_data(), ckpt_path=path)


def test_a_copy_of_the_base_elsewhere_is_as_good(tmp_path: Path) -> None:
    module = make(save_tiny_backbone(tmp_path / "model"))
    path = trained(module, tmp_path)
    copied = make(save_tiny_backbone(tmp_path / "copy"), start=1)
    again = EmbeddingModule.load_from_checkpoint(path, student=copied.student)
    assert torch.equal(again.encode(TEXTS), module.encode(TEXTS))


@pytest.mark.parametrize("targets", [["query"], "all-linear"])
def test_adapters_loaded_beside_the_trained_one_do_not_matter(tmp_path: Path, targets: Any) -> None:
    model = save_tiny_backbone(tmp_path / "model")
    beside = write_adapter(tmp_path / "clustering", model)  # of all linear layers
    torch.manual_seed(0)
    lora = LoRA("retrieval", rank=4, target_modules=targets)
    module = EmbeddingModule(Embedder(model, pooling="mean", adapter=lora), InfoNCE(), lr=1e-3)
    alone = frozen_weights(module.student)
    module.student.load_adapter(str(beside))
    assert fingerprint_of(frozen_weights(module.student)) == fingerprint_of(alone)
    path = trained(module, tmp_path)
    assert torch.load(path, weights_only=True)["state_dict"].keys() == trainable(module).keys()
    again = EmbeddingModule.load_from_checkpoint(path)
    assert torch.equal(again.encode(TEXTS), module.encode(TEXTS))


def test_a_student_from_a_config_keeps_whole_checkpoints(tmp_path: Path) -> None:
    tokenizer = save_tiny_tokenizer(tmp_path / "tokenizer")
    torch.manual_seed(0)
    student = Embedder(config=tiny_config(), tokenizer=tokenizer, pooling="mean", adapter=LoRA("retrieval", rank=2))
    assert frozen_weights(student) == {}
    module = EmbeddingModule(student, InfoNCE(), lr=1e-3)
    path = trained(module, tmp_path)
    checkpoint = torch.load(path, weights_only=True)
    assert checkpoint["state_dict"].keys() == module.state_dict().keys()
    torch.manual_seed(1)
    again = EmbeddingModule.load_from_checkpoint(path)
    assert torch.equal(again.encode(TEXTS), module.encode(TEXTS))


def test_a_student_without_an_adapter_keeps_whole_checkpoints(tmp_path: Path) -> None:
    assert frozen_weights(tiny_student(tmp_path)) == {}
    assert frozen_weights(Embedder(save_tiny_backbone(tmp_path / "model"), pooling="mean")) == {}


# The fingerprint


def test_the_fingerprint_tells_names_shapes_and_numbers() -> None:
    weights = {"a": torch.arange(6.0), "b": torch.tensor([True])}
    same = {"b": torch.tensor([True]), "a": torch.arange(6.0)}
    assert fingerprint_of(weights) == fingerprint_of(same)
    others = [
        {"a": torch.arange(6.0)},
        {**weights, "b": torch.tensor([False])},
        {**weights, "a": torch.arange(6.0).reshape(2, 3)},
        {**weights, "a": torch.tensor([0, 1, 2, 3, 4, 5.1])},
        {"a": torch.arange(6.0), "c": torch.tensor([True])},
        {**weights, "empty": torch.zeros(0)},
    ]
    assert len({fingerprint_of(other) for other in [weights, *others]}) == len(others) + 1


def test_the_fingerprint_reads_the_last_number_of_a_table_of_any_size() -> None:
    size = 2**24 + 4  # float32 has no number for the last place of such a table, nor for that of Qwen3-0.6B's
    table = torch.zeros(size, dtype=torch.int8)
    before = fingerprint_of({"table": table})
    table[-1] = 1
    assert fingerprint_of({"table": table}) != before


def test_the_fingerprint_does_not_depend_on_which_layers_have_adapters() -> None:
    plain = {"a.weight": torch.ones(2), "a_b.weight": torch.zeros(1), "c.weight": torch.ones(3)}
    adapted = {
        "a.base_layer.weight": torch.ones(2),
        "a.lora_A.x.weight": torch.ones(9),
        "a_b.weight": torch.zeros(1),
        "c.base_layer.weight": torch.ones(3),
    }
    assert fingerprint_of(adapted) == fingerprint_of(plain)


def test_the_fingerprint_tells_adapters_where_they_count() -> None:
    adapted = {"a.weight": torch.ones(2), "a.lora_A.x.weight": torch.ones(9)}
    others = [{**adapted, "a.lora_A.x.weight": torch.zeros(9)}, {"a.weight": torch.ones(2)}]
    assert len({fingerprint_of(weights, adapters=True) for weights in [adapted, *others]}) == 3
    assert len({fingerprint_of(weights) for weights in [adapted, *others]}) == 1
