import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from lightning_jv5.models.backbone import load_backbone
from lightning_jv5.models.lora import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    LoRA,
    active_adapter,
    adapter_in_use,
    adapter_names,
    adapter_parameters,
    add_lora,
    check_adapter_name,
    load_adapter,
    merge_adapter,
    merged_weight,
    save_adapter,
    switch_adapter,
)
from lightning_jv5.rebuildable import describe, rebuild
from tests.models.tiny_adapters import fill_adapter, write_adapter
from tests.references import slow_lora_weight
from tests.tiny_models import save_tiny_backbone

FAMILIES = ["bert", "qwen3", "eurobert"]
LAYERS = {  # of each family, the last names of a layer's linear parts
    "bert": ["dense", "key", "query", "value"],
    "qwen3": ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"],
    "eurobert": ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"],
}
IDS = torch.randint(5, 25, (3, 7), generator=torch.Generator().manual_seed(0))


def hidden(backbone: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return backbone(input_ids=IDS).last_hidden_state


def adapted(path: str, name: str = "retrieval", **settings: Any) -> nn.Module:
    backbone = load_backbone(path)
    add_lora(backbone, LoRA(name, **{"rank": 4, "alpha": 12.0, "dropout": 0.0, **settings}))
    fill_adapter(backbone, name)
    return backbone.eval()


def trainable(backbone: nn.Module) -> set[str]:
    return {name for name, weights in backbone.named_parameters() if weights.requires_grad}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("target_modules", ["all-linear", "two"])
def test_adapted_model_equals_one_whose_weights_are_w_plus_ba_alpha_over_r(
    tmp_path: Path, family: str, target_modules: str
) -> None:
    path = save_tiny_backbone(tmp_path, family)
    targets: Any = target_modules if target_modules == "all-linear" else LAYERS[family][-2:]
    backbone = adapted(path, target_modules=targets)
    tensors = dict(backbone.state_dict())
    merged = load_backbone(path).double()
    changed = set()
    for name, part in merged.named_modules():
        if f"{name}.lora_A.retrieval.weight" in tensors:
            a, b = (tensors[f"{name}.lora_{half}.retrieval.weight"] for half in "AB")
            part.weight.data = slow_lora_weight(tensors[f"{name}.base_layer.weight"], a, b, alpha=12, rank=4)
            changed.add(name.rpartition(".")[2])
    assert changed == set(LAYERS[family] if target_modules == "all-linear" else targets)
    torch.testing.assert_close(hidden(backbone), hidden(merged).float(), atol=1e-5, rtol=1e-4)
    assert not torch.allclose(hidden(backbone), hidden(load_backbone(path)), atol=1e-2)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("init", ["gaussian", "default"])
def test_a_new_adapter_changes_nothing_and_is_all_that_is_trained(tmp_path: Path, family: str, init: Any) -> None:
    path = save_tiny_backbone(tmp_path, family)
    backbone = load_backbone(path)
    before = hidden(backbone)
    add_lora(backbone, LoRA("retrieval", rank=3, init=init))
    assert torch.equal(hidden(backbone), before)
    own = adapter_parameters(backbone, "retrieval")
    assert trainable(backbone) == own.keys()
    linear = sum(isinstance(part, nn.Linear) for part in load_backbone(path).modules())
    assert len(own) == 2 * linear
    for name, weights in own.items():
        assert weights.any() == ("lora_A" in name)
        assert weights.shape["lora_B" in name] == 3
        assert weights.dtype == torch.float32


def test_the_two_starts_are_normal_with_variance_one_over_rank_squared_and_torchs_own(tmp_path: Path) -> None:
    path = save_tiny_backbone(tmp_path, hidden_size=64, intermediate_size=256)
    found = {}
    for init in ("gaussian", "default"):
        backbone = load_backbone(path)
        add_lora(backbone, LoRA("retrieval", rank=16, init=init))  # type: ignore[arg-type]
        starts = [w for name, w in adapter_parameters(backbone, "retrieval").items() if "lora_A" in name]
        found[init] = torch.cat([(w * (1 if init == "gaussian" else w.shape[1] ** 0.5)).flatten() for w in starts])
    assert found["gaussian"].std().item() == pytest.approx(1 / 16, rel=0.03)
    assert found["gaussian"].abs().max() > 3 / 16  # no uniform distribution of that variance reaches there
    assert found["default"].std().item() == pytest.approx(3**-0.5, rel=0.03)  # uniform in 1 / sqrt(inputs)
    assert found["default"].abs().max() <= 1


def test_dropout_is_of_what_goes_into_the_adapter_and_in_training_only(tmp_path: Path) -> None:
    path = save_tiny_backbone(tmp_path, "qwen3")
    backbone = adapted(path, dropout=0.5)
    assert torch.equal(hidden(backbone), hidden(backbone))
    torch.testing.assert_close(hidden(backbone), hidden(adapted(path)))
    backbone.train()
    assert not torch.allclose(hidden(backbone), hidden(backbone))
    with adapter_in_use(backbone, None):
        assert torch.equal(hidden(backbone), hidden(backbone))


def test_an_adapter_starts_in_the_mode_of_the_layers_around_it(tmp_path: Path) -> None:
    path = save_tiny_backbone(tmp_path / "model", "qwen3")
    folder = write_adapter(tmp_path / "clustering", path, dropout=0.5)
    backbone = load_backbone(path)
    add_lora(backbone, LoRA("retrieval", dropout=0.5))
    load_adapter(backbone, "clustering", folder)
    assert not any(part.training for part in backbone.modules())
    backbone.train()
    load_adapter(backbone, "again", folder)
    assert all(part.training for part in backbone.modules())


# Switching


@pytest.mark.parametrize("family", FAMILIES)
def test_without_adapter_the_model_is_its_base_bit_for_bit(tmp_path: Path, family: str) -> None:
    path = save_tiny_backbone(tmp_path, family)
    backbone = adapted(path)
    on = hidden(backbone)
    with adapter_in_use(backbone, None):
        assert active_adapter(backbone) is None
        assert torch.equal(hidden(backbone), hidden(load_backbone(path)))
    assert active_adapter(backbone) == "retrieval"
    assert torch.equal(hidden(backbone), on)
    assert not torch.allclose(on, hidden(load_backbone(path)), atol=1e-2)


def test_each_adapter_alone_is_in_use_whatever_others_there_are(tmp_path: Path) -> None:
    path = save_tiny_backbone(tmp_path / "model")
    alone, folders = {}, {}
    for seed, name in enumerate(["clustering", "text-matching"]):
        targets = ["query"] if seed else ["dense", "value"]  # each adapts layers that the other does not
        folders[name] = write_adapter(tmp_path / name, path, seed=seed, target_modules=targets)
        backbone = load_backbone(path)
        load_adapter(backbone, name, folders[name])
        with adapter_in_use(backbone, name):
            alone[name] = hidden(backbone)
    backbone = adapted(path)
    own = hidden(backbone)
    for name, folder in folders.items():
        load_adapter(backbone, name, folder)
    assert adapter_names(backbone) == ["retrieval", *folders]
    assert torch.equal(hidden(backbone), own)
    for name in folders:
        with adapter_in_use(backbone, name):
            assert active_adapter(backbone) == name
            assert torch.equal(hidden(backbone), alone[name])
            with adapter_in_use(backbone, None):
                assert torch.equal(hidden(backbone), hidden(load_backbone(path)))
            assert torch.equal(hidden(backbone), alone[name])
    assert torch.equal(hidden(backbone), own)
    with pytest.raises(ValueError, match="Got the adapter 'sts'; the model has retrieval, clustering, text-matching"):
        adapter_in_use(backbone, "sts").__enter__()


def test_what_is_trainable_survives_every_switch_and_every_load(tmp_path: Path) -> None:
    path = save_tiny_backbone(tmp_path / "model")
    folder = write_adapter(tmp_path / "clustering", path)
    backbone = adapted(path)
    before = trainable(backbone)
    load_adapter(backbone, "clustering", folder)
    assert trainable(backbone) == before
    for name in ("clustering", None, "retrieval", None, "clustering"):
        switch_adapter(backbone, name)
        assert trainable(backbone) == before
    whole = load_backbone(path)
    load_adapter(whole, "clustering", folder)
    names = {name.replace(".base_layer", "") for name in trainable(whole)}
    assert names == {name for name, _ in load_backbone(path).named_parameters()}


def test_a_switch_between_forward_and_backward_changes_no_gradient(tmp_path: Path) -> None:
    path = save_tiny_backbone(tmp_path / "model")
    folder = write_adapter(tmp_path / "clustering", path)
    found = []
    for switched in (False, True):
        backbone = adapted(path)
        loss = backbone(input_ids=IDS).last_hidden_state.pow(3).sum()
        if switched:
            with adapter_in_use(backbone, None):
                hidden(backbone)
            load_adapter(backbone, "clustering", folder)
            with adapter_in_use(backbone, "clustering"):
                hidden(backbone)
        loss.backward()
        found.append({name: w.grad for name, w in backbone.named_parameters() if w.grad is not None})
    assert found[0].keys() == adapter_parameters(backbone, "retrieval").keys()
    assert all(torch.equal(gradient, found[1][name]) for name, gradient in found[0].items())
    assert all(gradient.any() for gradient in found[0].values())


def test_loading_in_a_step_or_validation_draws_no_random_number_and_makes_trainable_tensors(tmp_path: Path) -> None:
    path = save_tiny_backbone(tmp_path / "model")
    folder = write_adapter(tmp_path / "clustering", path)
    backbone = adapted(path)
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    with torch.inference_mode():
        load_adapter(backbone, "clustering", folder)
    assert torch.equal(torch.rand(3), expected)
    assert not any(weights.is_inference() for weights in backbone.parameters())


# Merging


def test_a_merged_weight_is_the_exact_sum_rounded_once() -> None:
    generator = torch.Generator().manual_seed(0)
    weight, down, up = (torch.randn(shape, generator=generator) for shape in ((6, 5), (3, 5), (6, 3)))
    expected = slow_lora_weight(weight, down, up, alpha=5, rank=3)
    assert expected.dtype == torch.float64
    assert torch.equal(merged_weight(weight, down, up, 5 / 3), expected.float())


@pytest.mark.parametrize("family", FAMILIES)
def test_a_merged_model_has_the_adapter_in_its_weights_and_none_beside_them(tmp_path: Path, family: str) -> None:
    path = save_tiny_backbone(tmp_path / "model", family)
    backbone = adapted(path)
    load_adapter(backbone, "sts", write_adapter(tmp_path / "sts", path, seed=1))
    expected = hidden(backbone)
    merge_adapter(backbone, "retrieval")
    torch.testing.assert_close(hidden(backbone), expected, atol=1e-5, rtol=1e-4)
    plain = load_backbone(path)
    assert backbone.state_dict().keys() == plain.state_dict().keys()
    assert adapter_names(backbone) == []
    assert (hidden(backbone) - hidden(plain)).abs().max() > 1e-2


def test_what_cannot_be_merged_is_named(tmp_path: Path) -> None:
    from peft import LoraConfig, inject_adapter_in_model

    backbone = adapted(save_tiny_backbone(tmp_path))
    with pytest.raises(ValueError, match="Got the adapter 'sts'; the model has retrieval"):
        merge_adapter(backbone, "sts")
    inject_adapter_in_model(LoraConfig(r=2, target_modules=["query"], use_dora=True), backbone, adapter_name="dora")
    inject_adapter_in_model(LoraConfig(r=2, target_modules=["word_embeddings"]), backbone, adapter_name="words")
    with pytest.raises(ValueError, match="The adapter 'dora' changes a Linear or is a DoRA adapter; only LoRA of"):
        merge_adapter(backbone, "dora")
    with pytest.raises(ValueError, match="The adapter 'words' changes a Embedding or is a DoRA adapter"):
        merge_adapter(backbone, "words")


# Files


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", ["text-matching", "query", "layers", "encoder"])  # some layers are called so
def test_a_saved_adapter_is_read_by_peft_and_by_us(tmp_path: Path, family: str, name: str) -> None:
    from peft import PeftModel
    from transformers import AutoModel

    path = save_tiny_backbone(tmp_path / "model", family)
    backbone = adapted(path, name)
    (tmp_path / "adapter").mkdir()
    save_adapter(backbone, name, tmp_path / "adapter", base=path)
    theirs = PeftModel.from_pretrained(AutoModel.from_pretrained(path), tmp_path / "adapter").eval()
    torch.testing.assert_close(hidden(theirs), hidden(backbone), atol=1e-6, rtol=1e-5)
    again = load_backbone(path)
    load_adapter(again, "other", tmp_path / "adapter")
    with adapter_in_use(again, "other"):
        assert torch.equal(hidden(again), hidden(backbone))
    settings = json.loads((tmp_path / "adapter" / ADAPTER_CONFIG).read_text())
    assert settings["base_model_name_or_path"] == path
    assert settings["target_modules"] == LAYERS[family]
    assert (settings["r"], settings["lora_alpha"], settings["inference_mode"]) == (4, 12, True)


@pytest.mark.parametrize("family", FAMILIES)
def test_an_adapter_that_peft_saved_is_read(tmp_path: Path, family: str) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModel

    path = save_tiny_backbone(tmp_path / "model", family)
    config = LoraConfig(r=4, lora_alpha=7, target_modules=LAYERS[family][-2:], init_lora_weights=False)
    theirs = get_peft_model(AutoModel.from_pretrained(path), config).eval()
    theirs.save_pretrained(tmp_path / "adapter")
    backbone = load_backbone(path)
    load_adapter(backbone, "theirs", tmp_path / "adapter")
    with adapter_in_use(backbone, "theirs"):
        torch.testing.assert_close(hidden(backbone), hidden(theirs), atol=1e-6, rtol=1e-5)
    assert not torch.allclose(hidden(backbone), hidden(theirs), atol=1e-2)
    assert not any(weights.requires_grad for weights in adapter_parameters(backbone, "theirs").values())


def test_weights_of_an_adapter_are_those_of_its_name_alone(tmp_path: Path) -> None:
    path = save_tiny_backbone(tmp_path / "model")
    backbone = adapted(path, "query", target_modules=["query", "key"])
    load_adapter(backbone, "key", write_adapter(tmp_path / "key", path, target_modules=["query"]))
    assert len(adapter_parameters(backbone, "query")) == 2 * 2 * 2
    assert len(adapter_parameters(backbone, "key")) == 2 * 2
    assert trainable(backbone) == adapter_parameters(backbone, "query").keys()


def test_files_that_do_not_fit_are_named_and_leave_the_model_as_it_was(tmp_path: Path) -> None:
    path = save_tiny_backbone(tmp_path / "model")
    folder = write_adapter(tmp_path / "retrieval", path)
    wide = write_adapter(tmp_path / "wide", save_tiny_backbone(tmp_path / "wide_model", hidden_size=64))
    deep = write_adapter(tmp_path / "deep", save_tiny_backbone(tmp_path / "deep_model", num_hidden_layers=3))
    qwen = write_adapter(tmp_path / "qwen", save_tiny_backbone(tmp_path / "qwen_model", "qwen3"))
    cases = [
        (wide, "does not fit a BertModel: .*lora_A.other.weight is missing or has another shape"),
        (
            deep,
            r"does not fit a BertModel: encoder.layer.2.*is missing or has another shape. Was it trained on another",
        ),
        (qwen, "does not fit a BertModel: .*Was it trained on another backbone"),
        (tmp_path, "which has no adapter_config.json. Export the adapter again"),
    ]
    for backbone in (load_backbone(path), adapted(path)):
        for failing, message in cases:
            state, modes = hidden(backbone), trainable(backbone)
            keys, names = list(backbone.state_dict()), adapter_names(backbone)
            with pytest.raises(ValueError, match=message):
                load_adapter(backbone, "other", failing)
            assert (list(backbone.state_dict()), adapter_names(backbone)) == (keys, names)
            assert trainable(backbone) == modes
            assert torch.equal(hidden(backbone), state)
        load_adapter(backbone, "other", folder)  # the name is still free
    with pytest.raises(ValueError, match="Got a second adapter named 'other'"):
        load_adapter(backbone, "other", folder)
    (folder / ADAPTER_WEIGHTS).unlink()
    with pytest.raises(ValueError, match=r"which has no adapter_model\.safetensors"):
        load_adapter(backbone, "new", folder)


def test_an_adapter_of_another_kind_or_cut_off_is_refused(tmp_path: Path) -> None:
    from peft import IA3Config, get_peft_model
    from transformers import AutoModel

    path = save_tiny_backbone(tmp_path / "model")
    config = IA3Config(target_modules=["key"], feedforward_modules=[])
    get_peft_model(AutoModel.from_pretrained(path), config).save_pretrained(tmp_path / "ia3")
    with pytest.raises(ValueError, match=r"holds a PeftType\.IA3 adapter; only LoRA is supported"):
        load_adapter(load_backbone(path), "other", tmp_path / "ia3")
    folder = write_adapter(tmp_path / "cut", path)
    tensors = load_file(folder / ADAPTER_WEIGHTS)
    missing = sorted(tensors)[0]
    save_file({name: tensor for name, tensor in tensors.items() if name != missing}, folder / ADAPTER_WEIGHTS)
    with pytest.raises(ValueError, match=r"lora_A\.other\.weight is missing or has another shape"):
        load_adapter(load_backbone(path), "other", folder)


# Settings


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rank": 0}, "Got rank 0 of the adapter 'retrieval'; need at least 1"),
        ({"alpha": 0.0}, "Got alpha 0.0 of the adapter 'retrieval'; need a number above 0"),
        ({"alpha": float("nan")}, "Got alpha nan"),
        ({"dropout": 1.0}, "Got dropout 1.0 of the adapter 'retrieval'; need a probability"),
        ({"dropout": -0.1}, "Got dropout -0.1"),
        ({"target_modules": "query"}, "Got target_modules 'query' .*need 'all-linear' or a list"),
        ({"target_modules": []}, "Got no target_modules of the adapter 'retrieval'"),
        ({"init": "zeros"}, "Got init 'zeros' .*need 'gaussian' or 'default'"),
        ({"name": "a.b"}, "Got an adapter named 'a.b'; need letters, digits"),
        ({"name": ""}, "Got an adapter named ''"),
        ({"name": "a/b"}, "Got an adapter named 'a/b'"),
        ({"name": "train"}, "Got an adapter named 'train', a name that PyTorch's modules use themselves"),
        ({"name": "keys"}, "Got an adapter named 'keys'"),
    ],
)
def test_settings_that_cannot_be_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message) if ".*" not in message else message):
        LoRA(**{"name": "retrieval", **settings})


@pytest.mark.parametrize("name", ["retrieval", "text-matching", "sts_2", "default"])
def test_names_of_tasks_are_fine(name: str) -> None:
    check_adapter_name(name)


def test_layers_that_are_not_there_are_named(tmp_path: Path) -> None:
    backbone = load_backbone(save_tiny_backbone(tmp_path))
    for target in ("q_proj", "LayerNorm"):
        with pytest.raises(ValueError, match=f"'{target}' .* They are called dense, key, query, value"):
            add_lora(backbone, LoRA("retrieval", target_modules=["query", target]))
    with pytest.raises(ValueError, match="Got a LayerNorm without linear layers"):
        add_lora(nn.LayerNorm(2), LoRA("retrieval"))
    assert adapter_names(backbone) == []
    add_lora(backbone, LoRA("retrieval", target_modules=["attention.self.query"]))
    with pytest.raises(ValueError, match="Got a second adapter named 'retrieval'; give it another name"):
        add_lora(backbone, LoRA("retrieval"))


def test_a_second_adapter_to_train_is_of_the_models_own_layers_too(tmp_path: Path) -> None:
    path = save_tiny_backbone(tmp_path)
    backbone = adapted(path, target_modules=["query"])
    add_lora(backbone, LoRA("clustering"))
    again = load_backbone(path)
    add_lora(again, LoRA("clustering"))
    assert trainable(backbone) == adapter_parameters(again, "clustering").keys()


def test_lora_is_rebuilt_from_plain_data() -> None:
    lora = LoRA("retrieval", rank=3, alpha=5.0, dropout=0.2, target_modules=["query"], init="default")
    assert rebuild(describe(lora)) == lora
