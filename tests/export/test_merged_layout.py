import numpy as np
import pytest
import torch
from sentence_transformers.util.quantization import quantize_embeddings

from tests.export.assembled import FAMILIES
from tests.export.conftest import Converted
from tests.export.test_convert import TASKS, close


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("family", FAMILIES)
def test_sentence_transformers_reads_a_merged_model(converted: Converted, family: str, task: str) -> None:
    for role in ("query", "document", "short"):
        close(converted.found[f"{family}/merged/{task}/{role}"], converted.expected[f"{family}/{task}/{role}"])
    close(converted.found[f"{family}/merged/{task}/default"], converted.expected[f"{family}/{task}/document"])


@pytest.mark.parametrize("family", FAMILIES)
def test_its_smaller_precisions_are_those_of_our_embeddings(converted: Converted, family: str) -> None:
    ours = converted.expected[f"{family}/retrieval/document"].numpy()
    bits = converted.found[f"{family}/merged/retrieval/bits"].numpy()
    assert np.array_equal(bits, quantize_embeddings(ours, precision="ubinary"))
    steps = converted.found[f"{family}/merged/retrieval/int8"].int() - torch.tensor(
        quantize_embeddings(ours, precision="int8")
    )
    assert steps.abs().max() <= 1


def test_no_adapter_is_left(converted: Converted) -> None:
    names = {path.name for path in converted.layout("qwen3", "merged-retrieval").rglob("*")}
    assert "model.safetensors" in names
    assert not [name for name in names if "adapter" in name]
