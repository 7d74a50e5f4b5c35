from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from torch import nn

from lightning_jv5 import EmbeddingModule
from lightning_jv5.data.batches import RaggedTexts
from lightning_jv5.models import Embedder, LoRA
from lightning_jv5.models.backbone import load_backbone
from lightning_jv5.models.lora import adapter_in_use
from lightning_jv5.models.rope import rope_theta, set_rope_theta
from lightning_jv5.models.text_encoder import TextEncoder
from tests.models.tiny_adapters import fill_adapter, write_adapter
from tests.tiny_data import quiet_trainer, tiny_data, tiny_objective
from tests.tiny_models import save_tiny_backbone

FAMILIES = ["qwen3", "eurobert"]
LENGTH = 300
IDS = torch.randint(5, 25, (2, LENGTH), generator=torch.Generator().manual_seed(0))
TEXTS = RaggedTexts.from_lists([row[: LENGTH // (1 + place)].tolist() for place, row in enumerate(IDS)])


def save(folder: Path, family: str, theta: float = 1e4) -> str:
    parameters = {"rope_type": "default", "rope_theta": theta}
    return save_tiny_backbone(folder, family, max_position_embeddings=512, rope_parameters=parameters)


def make(folder: Path, family: str = "qwen3", **options: Any) -> Embedder:
    return Embedder(save(folder, family), pooling="mean", max_length=400, dropout=None, **options)


def hidden(backbone: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return backbone.eval()(input_ids=IDS).last_hidden_state


def with_theta(path: str, theta: float) -> nn.Module:
    """The reference: transformers itself, from a folder whose config says so."""
    from transformers import AutoConfig, AutoModel

    config = AutoConfig.from_pretrained(path)
    config.rope_parameters = {"rope_type": "default", "rope_theta": theta}
    return AutoModel.from_pretrained(path, config=config)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_switch_equals_a_model_loaded_with_that_theta_there_and_back(tmp_path: Path, family: str) -> None:
    path = save(tmp_path, family)
    backbone = load_backbone(path)
    for theta in (1e6, 500.0, 1e4):
        set_rope_theta(backbone, theta)
        assert rope_theta(backbone) == theta
        assert torch.equal(hidden(backbone), hidden(with_theta(path, theta)))


@pytest.mark.parametrize("family", FAMILIES)
def test_theta_moves_long_texts_much_and_short_ones_little(tmp_path: Path, family: str) -> None:
    backbone = load_backbone(save(tmp_path, family)).eval()
    changes = {}
    for length in (2, LENGTH):
        states = []
        for theta in (1e4, 1e6):
            set_rope_theta(backbone, theta)
            with torch.no_grad():
                states.append(backbone(input_ids=IDS[:, :length]).last_hidden_state[:, -1])
        changes[length] = torch.dist(*states).item()
    assert changes[LENGTH] > 5 * changes[2] > 0


@pytest.mark.parametrize("family", FAMILIES)
def test_another_config_alone_changes_nothing_which_is_why_frequencies_are_computed_anew(
    tmp_path: Path, family: str
) -> None:
    backbone: Any = load_backbone(save(tmp_path, family))
    before = hidden(backbone)
    backbone.config.rope_parameters = {"rope_type": "default", "rope_theta": 1e6}
    assert torch.equal(hidden(backbone), before)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_saved_model_has_the_theta_that_was_set_last(tmp_path: Path, family: str) -> None:
    backbone: Any = load_backbone(save(tmp_path / "model", family))
    set_rope_theta(backbone, 1e6)
    backbone.save_pretrained(tmp_path / "again")
    again = load_backbone(str(tmp_path / "again"))
    assert rope_theta(again) == 1e6
    assert torch.equal(hidden(again), hidden(backbone))


def test_other_kinds_of_scaling_keep_their_kind(tmp_path: Path) -> None:
    parameters = {"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0}
    path = save_tiny_backbone(tmp_path, "qwen3", max_position_embeddings=512, rope_parameters=parameters)
    backbone: Any = load_backbone(path)
    set_rope_theta(backbone, 1e6)
    from transformers import AutoConfig, AutoModel

    config = AutoConfig.from_pretrained(path)
    config.rope_parameters = {**parameters, "rope_theta": 1e6}
    assert torch.equal(hidden(backbone), hidden(AutoModel.from_pretrained(path, config=config)))


def test_what_has_no_theta_or_cannot_have_that_one_is_named(tmp_path: Path) -> None:
    bert = save_tiny_backbone(tmp_path / "bert")
    assert rope_theta(load_backbone(bert)) is None
    for settings in ({"theta": 1e6}, {"inference_theta": 1e6}):
        with pytest.raises(
            ValueError, match=r"theta of 1000000\.0 for a BertModel, which has no rotary position embedd"
        ):
            Embedder(bert, pooling="mean", **settings)  # type: ignore[arg-type]
    for theta in (1.0, 0.0, -5.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=f"Got a RoPE theta of {theta}; need a number above 1"):
            make(tmp_path / "qwen3", theta=theta)
        with pytest.raises(ValueError, match=f"Got a RoPE theta of {theta}; need a number above 1"):
            make(tmp_path / "qwen3", inference_theta=theta)


# In an embedder


@pytest.mark.parametrize("family", FAMILIES)
def test_training_mode_computes_with_theta_and_evaluation_with_inference_theta(tmp_path: Path, family: str) -> None:
    embedder = make(tmp_path, family, theta=2e4, inference_theta=1e6)
    for _ in range(2):
        for mode, theta in ((True, 2e4), (False, 1e6)):
            embedder.train(mode)
            expected = make(tmp_path, family, theta=theta)
            assert torch.equal(embedder(TEXTS), expected(TEXTS))
    assert not torch.allclose(embedder.train()(TEXTS), embedder.eval()(TEXTS), atol=1e-3)


@pytest.mark.parametrize(
    ("settings", "training", "inference"),
    [
        ({}, None, None),
        ({"theta": 2e4}, 2e4, 2e4),
        ({"inference_theta": 1e6}, 1e4, 1e6),
        ({"theta": 2e4, "inference_theta": 1e6}, 2e4, 1e6),
    ],
)
def test_one_theta_stands_for_the_other_where_that_is_not_given(
    tmp_path: Path, settings: dict[str, float], training: float | None, inference: float | None
) -> None:
    embedder = make(tmp_path, **settings)
    assert (embedder.theta, embedder.inference_theta) == (training, inference)
    assert rope_theta(embedder.backbone) == (inference or 1e4)
    again = make(tmp_path, theta=training or 1e4)
    assert torch.equal(embedder.train()(TEXTS), again.train()(TEXTS))


@pytest.mark.parametrize("how", ["recompute", "recompute_layers", "both"])
def test_a_recomputed_backward_pass_has_the_theta_of_training(tmp_path: Path, how: str) -> None:
    found = []
    for recomputed in (False, True):
        names = {"both": ["recompute", "recompute_layers"]}.get(how, [how])
        settings: Any = dict.fromkeys(names, recomputed)
        embedder = make(
            tmp_path, theta=2e4, inference_theta=1e6, adapter=LoRA("retrieval", rank=4, dropout=0.0), **settings
        )
        fill_adapter(embedder.backbone, "retrieval")
        loss = embedder.train()(TEXTS)[:, :5].sum()
        embedder.encode(["a cat sat on the mat"])  # with the other theta, and yet the backward pass has the first
        loss.backward()
        found.append({name: w.grad for name, w in embedder.named_parameters() if w.grad is not None})
    assert len(found[0]) == 28
    torch.testing.assert_close(found[1], found[0], atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_each_adapter_infers_with_the_theta_that_it_names(tmp_path: Path, family: str) -> None:
    model = save(tmp_path / "model", family)
    thetas = {"clustering": 1e6, "sts": 500.0, "plain": None}
    for name, theta in thetas.items():
        write_adapter(tmp_path / "model" / "adapters" / name, model, described={"inference_theta": theta})
    options: Any = {"pooling": "mean", "max_length": 400}
    texts = [" ".join(["the cat sat on a mat"] * 40), "a dog"]

    def expected(name: str, theta: float) -> torch.Tensor:
        embedder = Embedder(model, **options, inference_theta=theta)
        embedder.load_adapter(str(tmp_path / "model" / "adapters" / name), "other")
        with adapter_in_use(embedder.backbone, "other"):
            return TextEncoder.encode(embedder, texts)

    base = Embedder(model, **options)
    plain = base.encode(texts)
    for name, theta in thetas.items():
        wanted = expected("plain", theta or 1e4)  # all three have the same weights
        assert torch.equal(Embedder(model, **options, task=name).encode(texts), wanted)
        assert torch.equal(base.encode(texts, task=name), wanted)
        assert torch.equal(base.encode(texts), plain)
        other = Embedder(model, **options, task="clustering")
        assert torch.equal(other.encode(texts, task=name), wanted)
        explicit = Embedder(model, **options, task=name, inference_theta=2e4)
        assert torch.equal(explicit.encode(texts), expected("plain", 2e4))
        if theta is not None:
            assert not torch.allclose(wanted, expected("plain", 1e4), atol=1e-3)
    tokens = base.tokenization.ragged(texts, "document")
    trained = base.train()(tokens)
    base.eval()
    with base.using("clustering"):
        base(tokens)
    assert torch.equal(base.train()(tokens), trained)


class Thetas(Callback):
    """Note with which theta the backbone computes, in training and in validation."""

    def __init__(self, module: EmbeddingModule) -> None:
        self.seen: list[tuple[bool, float | None]] = []
        module.student.backbone.register_forward_hook(
            lambda backbone, *_: self.seen.append((backbone.training, rope_theta(backbone)))
        )


def test_a_fit_trains_with_one_theta_and_validates_with_the_other(tmp_path: Path) -> None:
    student = make(tmp_path, theta=2e4, inference_theta=1e6, adapter=LoRA("retrieval", rank=2))
    module = EmbeddingModule(student, tiny_objective(), lr=1e-3)
    thetas = Thetas(module)
    trainer = quiet_trainer(tmp_path, max_steps=3, val_check_interval=1, callbacks=[thetas])
    trainer.fit(module, tiny_data())
    assert set(thetas.seen) == {(True, 2e4), (False, 1e6)}
    modes = [training for training, _ in thetas.seen]
    assert modes.index(False) < len(modes) - 1 - modes[::-1].index(True)  # trained again after a validation
