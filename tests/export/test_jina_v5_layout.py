import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from lightning_jv5.data.cache import write_json
from lightning_jv5.export import convert
from tests.export.assembled import read
from tests.export.conftest import Converted
from tests.export.test_convert import TASKS, close


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("family", ["qwen3", "eurobert"])
def test_an_engine_that_merges_as_it_loads_gets_our_embeddings(converted: Converted, family: str, task: str) -> None:
    converted.check(f"{family}/jina_v5/{task}", f"{family}/{task}")
    close(converted.found[f"{family}/jina_v5/{task}/tokens"], converted.expected[f"{family}/{task}/tokens"])


@pytest.mark.parametrize("family", ["qwen3", "eurobert"])
def test_names_and_keys_are_the_published_ones(converted: Converted, family: str) -> None:
    folder = converted.layout(family, "jina_v5")
    config = read(folder / "config.json")
    assert (config["task_names"], config["is_decoder"]) == (["clustering", "retrieval"], family == "qwen3")
    assert (config["hidden_size"], config["num_hidden_layers"]) == (32, 2)
    prompts = read(folder / "config_sentence_transformers.json")
    assert prompts["prompts"] == {"query": "query : ", "document": ""}
    assert prompts["default_prompt_name"] == "document"
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    weights = {f"adapters/{task}/adapter_model.safetensors" for task in TASKS}
    assert {"model.safetensors", "tokenizer.json", "modules.json", *weights} <= files
    assert not [name for name in files if name.endswith(".py")]


@pytest.mark.parametrize(
    ("family", "key", "message"),
    [
        ("bert", None, "Got a bert model for the layout jina_v5, which has qwen3 and eurobert"),
        ("qwen3", '"use_rslora": false', "The adapter 'clustering' sets use_rslora"),
    ],
)
def test_what_its_readers_would_not_compute_is_refused(
    converted: Converted, tmp_path: Path, family: str, key: str | None, message: str
) -> None:
    model = shutil.copytree(converted.layout(family, "assembled"), tmp_path / "model")
    config = model / "adapters" / "clustering" / "adapter_config.json"
    if key is not None:
        assert key in config.read_text()
        config.write_text(config.read_text().replace(key, key.replace("false", "true")))
    with pytest.raises(ValueError, match=message):
        convert(str(model), str(tmp_path / "x"), "jina_v5")


def test_a_task_that_its_readers_take_for_another_is_refused(converted: Converted, tmp_path: Path) -> None:
    model = shutil.copytree(converted.layout("qwen3", "assembled"), tmp_path / "model")
    (model / "adapters" / "retrieval").rename(model / "adapters" / "sts")
    wanted = "retrieval, text-matching, clustering, classification and take any other name for retrieval"
    with pytest.raises(ValueError, match=f"Got an adapter named 'sts' .* know {wanted}. Use the layout switching"):
        convert(str(model), str(tmp_path / "x"), "jina_v5")
    convert(str(model), str(tmp_path / "x"), "switching")


def test_a_model_with_dense_layers_is_refused(converted: Converted, tmp_path: Path) -> None:
    model = shutil.copytree(converted.layout("qwen3", "assembled"), tmp_path / "model")
    (model / "2_Normalize").rename(model / "3_Normalize")
    modules: Any = read(model / "modules.json")
    dense = {"idx": 2, "name": "2", "path": "2_Dense", "type": "sentence_transformers.models.Dense"}
    last = {"idx": 3, "name": "3", "path": "3_Normalize", "type": modules[2]["type"]}
    write_json(model / "modules.json", [*modules[:2], dense, last])
    activation = "torch.nn.modules.linear.Identity"
    write_json(
        model / "2_Dense" / "config.json", {"in_features": 32, "out_features": 8, "activation_function": activation}
    )
    weights = {"linear.weight": torch.ones(8, 32), "linear.bias": torch.ones(8)}
    save_file(weights, model / "2_Dense" / "model.safetensors")
    with pytest.raises(ValueError, match=r"Got a model with 1 Dense layer\(s\) .* Use the layout switching"):
        convert(str(model), str(tmp_path / "x"), "jina_v5")
    convert(str(model), str(tmp_path / "x"), "switching")


def test_a_task_is_not_chosen_here(converted: Converted, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Got task 'retrieval' for the layout jina_v5, which has all of them"):
        convert(str(converted.layout("qwen3", "assembled")), str(tmp_path / "x"), "jina_v5", task="retrieval")
