import json
import shutil
from pathlib import Path

import pytest

from lightning_jv5 import Embedder
from lightning_jv5.export import convert
from lightning_jv5.export.task_switching import TaskSwitchingTransformer
from tests.export.assembled import FAMILIES, read
from tests.export.conftest import Converted
from tests.export.test_convert import TASKS, close


@pytest.mark.parametrize("family", FAMILIES)
def test_sentence_transformers_switches_between_tasks(converted: Converted, family: str) -> None:
    for task in (*TASKS, None):
        converted.check(f"{family}/switching/None/{task}", f"{family}/{task}")
    close(converted.found[f"{family}/switching/None/default"], converted.expected[f"{family}/None/document"])


@pytest.mark.parametrize("family", FAMILIES)
def test_a_copy_that_sentence_transformers_saved_switches_too_and_takes_a_default(
    converted: Converted, family: str
) -> None:
    close(converted.found[f"{family}/switching/None/preset"], converted.expected[f"{family}/retrieval/query"])


def test_it_loads_by_its_name_on_the_hub(converted: Converted) -> None:
    close(converted.found["eurobert/hub/None/retrieval"], converted.expected["eurobert/retrieval/document"])


def test_a_model_without_prompts_takes_those_of_its_tasks(converted: Converted, tmp_path: Path) -> None:
    model = shutil.copytree(converted.layout("bert", "assembled"), tmp_path / "model")
    for folder, prompt in (
        (model, ""),
        (model / "adapters" / "retrieval", ""),
        (model / "adapters" / "clustering", "on "),
    ):
        described = read(folder / "lightning_jv5.json") | {"prompts": {"query": prompt, "document": prompt}}
        (folder / "lightning_jv5.json").write_text(json.dumps(described))
    theirs = read(model / "config_sentence_transformers.json") | {"prompts": {}, "default_prompt_name": None}
    (model / "config_sentence_transformers.json").write_text(json.dumps(theirs))
    convert(str(model), str(tmp_path / "x"), "switching")
    prompts = read(tmp_path / "x" / "config_sentence_transformers.json")
    assert (prompts["prompts"], prompts["default_prompt_name"]) == ({"query": "on ", "document": "on "}, "document")
    module = TaskSwitchingTransformer.load(str(tmp_path / "x"))
    ids = {
        task: module.preprocess(["a dog"], prompt="on ", task=task)["input_ids"].tolist() for task in [*TASKS, "query"]
    }
    tokens = Embedder(str(model)).tokenization
    bare, prompted = tokens(["a dog"], "document"), tokens(["on a dog"], "document")
    assert ids == {"retrieval": bare, "clustering": prompted, "query": bare}
    other = module.preprocess(["a dog"], prompt="who ", task="clustering")["input_ids"].tolist()
    assert other == tokens(["who a dog"], "document")  # a prompt of the caller's own stays


def test_a_task_that_is_not_there_is_refused_in_the_folder_too(converted: Converted) -> None:
    said = bytes(converted.found["bert/switching/None/refused"].tolist()).decode()
    assert said == "Got task 'cooking'; this model has adapters for clustering, retrieval."


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("family", FAMILIES)
def test_transformers_and_peft_read_the_folder(converted: Converted, family: str, task: str) -> None:
    converted.check(f"{family}/peft-switching/{task}", f"{family}/{task}")
    close(converted.found[f"{family}/peft-switching/{task}/tokens"], converted.expected[f"{family}/{task}/tokens"])


def test_the_task_of_calls_that_name_none_can_be_chosen(converted: Converted, tmp_path: Path) -> None:
    model = str(converted.layout("bert", "assembled"))
    convert(model, str(tmp_path / "x"), "switching", task="clustering")
    assert read(tmp_path / "x" / "sentence_bert_config.json")["default_task"] == "clustering"


def test_a_folder_that_lost_its_adapters_says_so(converted: Converted, tmp_path: Path) -> None:
    folder = shutil.copytree(converted.layout("bert", "switching"), tmp_path / "x")
    shutil.rmtree(folder / "adapters")
    with pytest.raises(ValueError, match=r"has no folder adapters. Download the model again"):
        TaskSwitchingTransformer.load(str(folder))


def test_an_adapter_named_like_a_role_is_refused(converted: Converted, tmp_path: Path) -> None:
    model = shutil.copytree(converted.layout("bert", "assembled"), tmp_path / "model")
    (model / "adapters" / "retrieval").rename(model / "adapters" / "query")
    with pytest.raises(ValueError, match="Got an adapter named 'query', which encode_query of sentence-transformers"):
        convert(str(model), str(tmp_path / "x"), "switching")


def test_an_adapter_that_peft_would_save_elsewhere_is_refused(converted: Converted, tmp_path: Path) -> None:
    model = shutil.copytree(converted.layout("bert", "assembled"), tmp_path / "model")
    (model / "adapters" / "retrieval").rename(model / "adapters" / "default")
    with pytest.raises(ValueError, match=r"Got an adapter named 'default', .* would lose it. Name it for its task"):
        convert(str(model), str(tmp_path / "x"), "switching")
    convert(str(model), str(tmp_path / "x"), "merged", task="default")


def test_adapters_with_different_thetas_are_refused(converted: Converted, tmp_path: Path) -> None:
    model = shutil.copytree(converted.layout("qwen3", "assembled"), tmp_path / "model")
    described = model / "adapters" / "retrieval" / "lightning_jv5.json"
    described.write_text(described.read_text().replace('"inference_theta": 7000.0', '"inference_theta": 77.0'))
    with pytest.raises(ValueError, match=r"infer with the RoPE thetas 77.0, 7000.0, and one config.json has one"):
        convert(str(model), str(tmp_path / "x"), "switching")
