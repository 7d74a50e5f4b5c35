from pathlib import Path

from lightning_jv5.export.model_parts import read_model_parts
from tests.export.assembled import PROMPTS
from tests.export.conftest import Converted
from tests.models.tiny_adapters import write_adapter


def test_an_adapters_own_folder_has_its_model_and_itself(converted: Converted) -> None:
    assembled = converted.layout("qwen3", "assembled")
    parts = read_model_parts(str(assembled / "adapters" / "retrieval"))
    assert (parts.model, parts.tasks) == (assembled, ["retrieval"])
    described = parts.description(parts.embedder(), "retrieval")
    assert (described.task, described.prompts, described.inference_theta) == ("retrieval", PROMPTS["retrieval"], 7000.0)


def test_what_an_adapter_leaves_open_is_its_models(converted: Converted, tmp_path: Path) -> None:
    model = str(converted.layout("qwen3", "assembled"))
    said = {"task": "sts", "base": model, "prompts": {"query": "what "}, "max_length": {"query": 7}}
    some = read_model_parts(str(write_adapter(tmp_path / "some", model, described=said)))
    described = some.description(some.embedder(), "sts")
    assert described.prompts == {"query": "what ", "document": ""}
    assert described.max_length == {"query": 7, "document": 24}
    none = read_model_parts(str(write_adapter(tmp_path / "none", model, base=model)))
    described = none.description(none.embedder(), "none")
    assert (described.prompts, described.inference_theta, described.dim) == (PROMPTS[None], 7000.0, 32)
