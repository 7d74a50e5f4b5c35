import threading

import pytest
import torch

from lightning_jv5.data import score_tiles
from lightning_jv5.data.score_tiles import full_float32, products


@pytest.mark.parametrize("most", [2**22, 20])  # in memory that is used again, and beside it
def test_products_are_those_of_a_matrix_product(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(score_tiles, "TILE_SCORES", most)
    monkeypatch.setattr(score_tiles._MEMORY, "scores", None)
    for queries, documents in ((3, 5), (7, 11), (1, 1), (4, 0)):
        query, document = torch.randn(queries, 6), torch.randn(documents, 6)
        expected = query.double() @ document.double().T
        scores = products(query, document)
        torch.testing.assert_close(scores.double(), expected, atol=1e-5, rtol=0)


def test_memory_is_used_again_by_its_own_thread_alone() -> None:
    ones = torch.ones(2, 3)
    first = products(ones, ones)
    elsewhere = threading.Thread(target=products, args=(torch.zeros(2, 3), ones))
    elsewhere.start()
    elsewhere.join()
    assert first.eq(3).all()
    assert products(2 * ones, ones).data_ptr() == first.data_ptr()
    assert first.eq(6).all()


def test_memory_that_validation_takes_first_serves_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(score_tiles._MEMORY, "scores", None)
    ones = torch.ones(2, 3)
    with torch.inference_mode():
        products(ones, ones)
    assert products(2 * ones, ones).eq(6).all()
    with torch.inference_mode():
        assert products(ones, ones).eq(3).all()


def test_products_are_of_float32_whatever_training_multiplies_in() -> None:
    near = torch.tensor([[0.980, 0.981]])
    with torch.autocast("cpu", torch.bfloat16), full_float32(near.device):
        scores = products(torch.ones(1, 1), near.T)
    assert scores[0, 0] < scores[0, 1]
