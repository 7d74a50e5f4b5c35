import pytest
import torch

from lightning_jv5.models.pooling import PoolingName, pool, pool_packed

TOKENS = torch.arange(2 * 4 * 3, dtype=torch.float32).reshape(2, 4, 3) ** 2


def slow_pool(tokens: torch.Tensor, mask: torch.Tensor, pooling: str) -> torch.Tensor:
    rows = []
    for text, attended in zip(tokens, mask, strict=True):
        kept = [token for token, keep in zip(text, attended, strict=True) if keep]
        rows.append({"last": kept[-1], "cls": kept[0], "mean": sum(kept) / len(kept)}[pooling])
    return torch.stack(rows)


@pytest.mark.parametrize("mask", [[[1, 1, 0, 0], [1, 1, 1, 1]], [[0, 0, 0, 1], [0, 1, 1, 1]]], ids=["right", "left"])
@pytest.mark.parametrize("pooling", ["last", "mean", "cls"])
def test_pool_matches_slow_reference_for_either_padding_side(mask: list[list[int]], pooling: str) -> None:
    attention = torch.tensor(mask)
    torch.testing.assert_close(pool(TOKENS, attention, pooling), slow_pool(TOKENS, attention, pooling))


@pytest.mark.parametrize("pooling", ["last", "mean", "cls"])
def test_padding_is_never_seen_even_if_it_is_nan(pooling: str) -> None:
    tokens = TOKENS.clone()
    tokens[0, 2:] = torch.nan
    assert pool(tokens, torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1]]), pooling).isfinite().all()


@pytest.mark.parametrize("pooling", ["last", "mean", "cls"])
def test_packed_texts_are_pooled_as_padded_ones(pooling: PoolingName) -> None:
    mask = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1]])
    packed = TOKENS[mask.bool()].requires_grad_()
    pooled = pool_packed(packed, torch.tensor([0, 2, 6], dtype=torch.int32), pooling)
    torch.testing.assert_close(pooled, slow_pool(TOKENS, mask, pooling))
    padded = TOKENS.clone().requires_grad_()
    weights = torch.arange(6.0).reshape(2, 3)
    expected, gradient = (
        torch.autograd.grad((embedding * weights).sum(), tokens)[0]
        for embedding, tokens in ((pool(padded, mask, pooling), padded), (pooled, packed))
    )
    torch.testing.assert_close(gradient, expected[mask.bool()])


def test_bfloat16_tokens_are_pooled_in_float32() -> None:
    tokens = torch.ones(1, 300, 1, dtype=torch.bfloat16)
    for pooled in (pool(tokens, torch.ones(1, 300), "mean"), pool_packed(tokens[0], torch.tensor([0, 300]), "mean")):
        assert pooled.dtype == torch.float32
        assert pooled.item() == 1.0


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match=r"Got token_embeddings \(2, 4, 3\), attention_mask \(2, 3\)"):
        pool(TOKENS, torch.ones(2, 3), "mean")
    with pytest.raises(ValueError, match="'max'; need one of last, mean, cls"):
        pool(TOKENS, torch.ones(2, 4), "max")
    with pytest.raises(ValueError, match=r"Texts \[1\] have no attended token"):
        pool(TOKENS, torch.tensor([[1, 1, 1, 1], [0, 0, 0, 0]]), "mean")
    with pytest.raises(ValueError, match=r"Got token_embeddings \(2, 4, 3\), bounds \(3,\); need"):
        pool_packed(TOKENS, torch.tensor([0, 2, 4]), "mean")
    with pytest.raises(ValueError, match="'max'; need one of last, mean, cls"):
        pool_packed(TOKENS[0], torch.tensor([0, 2, 4]), "max")
