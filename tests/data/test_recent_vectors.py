import pytest
import torch

from lightning_jv5.data.recent_vectors import RecentVectors
from lightning_jv5.data.vector_columns import store


def test_the_last_texts_are_found_with_their_vectors_and_scales() -> None:
    recent = RecentVectors(3)
    for number in range(5):
        recent.add([f"text {number}"], "query", store(torch.full((1, 2), float(number)), "int8"))
    positions, found = recent.find([f"text {number}" for number in range(5)], "query")
    assert positions.tolist() == [2, 3, 4]
    assert found is not None
    assert found.scale is not None
    torch.testing.assert_close(
        found.values.float() * found.scale[:, None], torch.tensor([[2.0] * 2, [3.0] * 2, [4.0] * 2])
    )


def test_more_than_fit_leave_the_last() -> None:
    recent = RecentVectors(2)
    recent.add(["a", "b", "c"], "query", store(torch.arange(3.0)[:, None], "float16"))
    positions, found = recent.find(["a", "b", "c"], "query")
    assert positions.tolist() == [1, 2]
    assert found is not None
    assert found.values.tolist() == [[1.0], [2.0]]


def test_a_text_in_another_role_is_another_text() -> None:
    recent = RecentVectors(2)
    recent.add(["a"], "query", store(torch.eye(1), "float16"))
    assert recent.find(["a"], "document")[0].tolist() == []


def test_without_capacity_nothing_is_remembered() -> None:
    recent = RecentVectors(0)
    recent.add(["a"], "query", store(torch.eye(1), "float16"))
    positions, found = recent.find(["a"], "query")
    assert positions.shape == (0,)
    assert found is None


def test_a_negative_capacity_is_refused() -> None:
    with pytest.raises(ValueError, match="Got a capacity of -1 texts; need 0 or more"):
        RecentVectors(-1)
