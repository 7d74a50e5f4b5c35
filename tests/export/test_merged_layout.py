import pytest

from tests.export.assembled import FAMILIES
from tests.export.conftest import Converted
from tests.export.test_convert import TASKS, close


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("family", FAMILIES)
def test_sentence_transformers_reads_a_merged_model(converted: Converted, family: str, task: str) -> None:
    converted.check(f"{family}/merged/{task}", f"{family}/{task}")
    close(converted.found[f"{family}/merged/{task}/default"], converted.expected[f"{family}/{task}/document"])


def test_no_adapter_is_left(converted: Converted) -> None:
    names = {path.name for path in converted.layout("qwen3", "merged-retrieval").rglob("*")}
    assert "model.safetensors" in names
    assert not [name for name in names if "adapter" in name]
