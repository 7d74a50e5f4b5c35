"""Texts end to end give what padded texts give, and attention is what its formula says."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_jv5.data.batches import RaggedTexts
from lightning_jv5.models import Embedder, Teacher
from lightning_jv5.models.packed_attention import (
    _attend_by_flash_attn,
    _attend_by_torch_kernel,
    packed_attention,
    packed_attention_forward,
)
from tests.tiny_data import tiny_texts
from tests.tiny_models import save_tiny_backbone, save_tiny_tokenizer, tiny_config

FAMILIES = ["bert", "qwen3", "eurobert", "roberta"]
Student = Callable[..., Embedder]


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Student:
    """Return a maker of students whose weights are large enough for attention to matter."""
    folders = {
        family: save_tiny_backbone(tmp_path_factory.mktemp(family), family, **sizes(family)) for family in FAMILIES
    }

    def make(family: str, **settings: Any) -> Embedder:
        return Embedder(folders[family], **{"pooling": "mean", "max_tokens_per_chunk": 24, **settings})

    return make


def sizes(family: str) -> dict[str, Any]:
    return {"max_position_embeddings": 66} if family == "roberta" else {}  # counts them from the padding token's


def embed_and_train(student: Embedder, texts: list[str]) -> tuple[Tensor, dict[str, Tensor | None]]:
    embeddings = student(student.tokenization.ragged(texts, "document"))
    target = torch.randn(embeddings.shape, generator=torch.Generator().manual_seed(0))
    (embeddings * target).mean().backward()
    return embeddings.detach(), {name: weights.grad for name, weights in student.named_parameters()}


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("pooling", ["mean", "last", "cls"])
@pytest.mark.parametrize("family", FAMILIES)
def test_packed_texts_have_the_embeddings_and_gradients_of_padded_ones(
    student: Student, family: str, pooling: str, recompute: bool
) -> None:
    texts = tiny_texts(9, seed=6)
    padded = embed_and_train(student(family, pooling=pooling), texts)
    packed = embed_and_train(student(family, pooling=pooling, recompute=recompute, attention="packed"), texts)
    torch.testing.assert_close(packed, padded, atol=1e-5, rtol=1e-5)
    assert padded[0].std(dim=0).min() > 1e-3, "the texts must differ"


def test_encode_and_a_text_alone_give_the_same(student: Student) -> None:
    texts = tiny_texts(9, seed=6)
    packed, padded = student("qwen3", attention="packed"), student("qwen3")
    torch.testing.assert_close(packed.encode(texts), padded.encode(texts), atol=1e-5, rtol=0)
    alone = torch.cat([packed.encode([text]) for text in texts])
    torch.testing.assert_close(packed.encode(texts), alone, atol=1e-5, rtol=0)
    assert packed.encode([]).shape == (0, 32)


def test_nothing_is_padded_and_a_chunk_is_one_row_of_at_most_so_many_tokens(student: Student) -> None:
    packed = student("bert", attention="packed")
    shapes: list[torch.Size] = []
    packed.backbone.register_forward_pre_hook(
        lambda _, __, inputs: shapes.append(inputs["inputs_embeds"].shape[:2]), with_kwargs=True
    )
    texts = packed.tokenization.ragged(tiny_texts(9, seed=6), "document")
    packed(texts)
    total = int(texts.lengths.sum())
    assert {rows for rows, _ in shapes} == {1}
    assert sum(tokens for _, tokens in shapes) == total == packed.computed_tokens(texts.lengths)
    assert 2 <= len(shapes) <= -(-total // 24) + 1
    assert max(tokens for _, tokens in shapes) <= 24
    assert student("bert").computed_tokens(texts.lengths) > total


def test_a_teacher_may_be_packed(tmp_path: Path) -> None:
    tokenizer, config = save_tiny_tokenizer(tmp_path), tiny_config("eurobert")
    packed, padded = (
        Teacher(config=config, tokenizer=tokenizer, pooling="last", attention=attention)
        for attention in ("packed", None)
    )
    texts = tiny_texts(5, seed=7)
    torch.testing.assert_close(packed.encode(texts), padded.encode(texts), atol=1e-5, rtol=0)
    assert packed.fingerprint == padded.fingerprint


def slow_attention(query: Tensor, key: Tensor, value: Tensor, lengths: list[int], causal: bool, scale: float) -> Tensor:
    """Equation 1 of https://arxiv.org/abs/1706.03762, a head and a token at a time."""
    groups = len(query) // len(key)
    result = torch.zeros(query.shape, dtype=torch.float64)
    for head in range(len(query)):
        start = 0
        for length in lengths:
            for token in range(start, start + length):
                seen = slice(start, token + 1 if causal else start + length)
                weights = (key[head // groups, seen].double() @ query[head, token].double() * scale).softmax(0)
                result[head, token] = weights @ value[head // groups, seen].double()
            start += length
    return result


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("scale", [None, 0.7])
@pytest.mark.parametrize("lengths", [[3, 3, 1, 5, 3], [1], [4, 4]])
def test_packed_attention_matches_slow_reference(lengths: list[int], scale: float | None, causal: bool) -> None:
    generator, total = torch.Generator().manual_seed(0), sum(lengths)
    query, key, value = (torch.randn(heads, total, 8, generator=generator) for heads in (4, 2, 2))
    bounds = F.pad(torch.tensor(lengths).cumsum(0), (1, 0)).int()
    attended = packed_attention(query, key, value, bounds, max(lengths), causal=causal, scale=scale)
    expected = slow_attention(query, key, value, lengths, causal, scale or 8**-0.5)
    torch.testing.assert_close(attended.double(), expected, atol=1e-5, rtol=1e-5)


def kernel_stand_in(query: Tensor, key: Tensor, value: Tensor, *, causal: bool, scale: float | None) -> Tensor:
    """What both kernels compute for the texts of :func:`test_kernels_get_what_they_document`, in their layout."""
    assert (query.shape, key.shape, value.shape) == ((6, 4, 8), (6, 2, 8), (6, 2, 8))
    parts = (part.transpose(0, 1) for part in (query, key, value))
    return slow_attention(*parts, [4, 2], causal, scale or 8**-0.5).float().transpose(0, 1)


@pytest.mark.parametrize("kernel", [_attend_by_torch_kernel, _attend_by_flash_attn])
@pytest.mark.parametrize("causal", [False, True])
def test_kernels_get_what_they_document(
    monkeypatch: pytest.MonkeyPatch, kernel: Callable[..., Tensor], causal: bool
) -> None:
    def varlen_attn(  # the signatures of torch 2.13 and flash-attn 2.8
        query: Tensor,
        key: Tensor,
        value: Tensor,
        cu_seq_q: Tensor,
        cu_seq_k: Tensor,
        max_q: int,
        max_k: int,
        *,
        scale: float | None,
        window_size: tuple[int, int],
        enable_gqa: bool,
    ) -> Tensor:
        assert (cu_seq_q.tolist(), cu_seq_k.tolist(), max_q, max_k, enable_gqa) == ([0, 4, 6], [0, 4, 6], 4, 4, True)
        return kernel_stand_in(query, key, value, causal=window_size == (-1, 0), scale=scale)

    def flash_attn_varlen_func(
        q: Tensor,
        k: Tensor,
        v: Tensor,
        cu_seqlens_q: Tensor,
        cu_seqlens_k: Tensor,
        max_seqlen_q: int,
        max_seqlen_k: int,
        dropout_p: float,
        softmax_scale: float | None,
        causal: bool,
    ) -> Tensor:
        assert (cu_seqlens_q.tolist(), cu_seqlens_k.tolist(), max_seqlen_q, max_seqlen_k) == (
            [0, 4, 6],
            [0, 4, 6],
            4,
            4,
        )
        assert dropout_p == 0.0
        return kernel_stand_in(q, k, v, causal=causal, scale=softmax_scale)

    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", varlen_attn)
    package = SimpleNamespace(flash_attn_varlen_func=flash_attn_varlen_func)
    monkeypatch.setitem(sys.modules, "flash_attn", package)  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(0)
    parts = [torch.randn(heads, 6, 8, generator=generator) for heads in (4, 2, 2)]
    settings: dict[str, Any] = {"causal": causal, "scale": 0.7, "dropout": 0.0}
    bounds = torch.tensor([0, 4, 6], dtype=torch.int32)
    expected = packed_attention(*parts, bounds, 4, **settings)
    torch.testing.assert_close(kernel(*parts, bounds=bounds, max_length=4, **settings), expected, atol=1e-5, rtol=1e-5)


def test_torch_has_the_kernel_with_these_arguments() -> None:
    parts = [torch.empty(heads, 6, 8, device="meta", dtype=torch.bfloat16) for heads in (4, 2, 2)]
    bounds = torch.empty(3, device="meta", dtype=torch.int32)
    attended = _attend_by_torch_kernel(*parts, bounds=bounds, max_length=4, causal=True, scale=None, dropout=0.0)
    assert attended.shape == (4, 6, 8)


def test_attention_weights_are_dropped_with_their_probability() -> None:
    torch.manual_seed(0)
    length, probability = 50, 0.3
    query = torch.zeros(1, 2 * length, length)
    value = torch.eye(length).repeat(2, 1)[None] * length * (1 - probability)  # a kept weight shows as one
    bounds = torch.tensor([0, length, 2 * length], dtype=torch.int32)
    attended = packed_attention(query, query, value, bounds, length, causal=False, dropout=probability)
    torch.testing.assert_close(attended.unique(), torch.tensor([0.0, 1.0]), atol=1e-5, rtol=0)
    assert attended.mean() == pytest.approx(1 - probability, abs=0.03)


def test_dropout_of_the_backbone_reaches_packed_attention_in_training_only(student: Student) -> None:
    packed = student("qwen3", attention="packed", dropout=0.5)
    texts = packed.tokenization.ragged(tiny_texts(5, seed=6), "document")
    evaluated = packed.eval()(texts)
    assert torch.equal(evaluated, packed(texts))
    assert not torch.allclose(evaluated, packed.train()(texts), atol=1e-3)


def test_recomputing_repeats_the_dropout(student: Student) -> None:
    texts, gradients = tiny_texts(5, seed=6), []
    for recompute in (False, True):
        packed = student("bert", attention="packed", dropout=0.3, recompute=recompute).train()
        torch.manual_seed(1)
        gradients.append(embed_and_train(packed, texts)[1])
    torch.testing.assert_close(gradients[1], gradients[0], atol=1e-6, rtol=1e-5)


def test_a_backbone_that_computes_its_own_attention_is_refused(tmp_path: Path) -> None:
    settings = {"tokenizer": save_tiny_tokenizer(tmp_path), "pooling": "mean", "attention": "packed"}
    sizes = tiny_config()
    with pytest.raises(ValueError, match=r"MPNetModel, which does not let others .* Leave attention out"):
        Embedder(config={**sizes, "model_type": "mpnet"}, **settings)


def test_padded_texts_are_refused_by_a_packed_backbone(student: Student) -> None:
    ids = torch.ones(2, 3, dtype=torch.int64)
    with pytest.raises(ValueError, match="Got padded texts for a backbone with packed attention; need them end to end"):
        student("bert", attention="packed").backbone(input_ids=ids, attention_mask=torch.ones_like(ids))


NOT_COMPUTED: list[tuple[dict[str, Any], str]] = [
    ({"softcap": 30.0}, "softcap"),
    ({"sliding_window": 4}, "a window of 4 for a text of 5 tokens"),
]


@pytest.mark.parametrize(("asked", "named"), NOT_COMPUTED)
def test_what_is_not_computed_is_refused(asked: dict[str, Any], named: str) -> None:
    part = torch.zeros(1, 1, 5, 2)
    bounds: dict[str, Any] = {"cu_seq_lens_q": torch.tensor([0, 5]), "max_length_q": 5}
    attended, _ = packed_attention_forward(nn.Identity(), part, part, part, sliding_window=5, **bounds)
    assert attended.shape == (1, 5, 1, 2)
    with pytest.raises(ValueError, match=f"Identity asks for {named}, which packed attention does not compute"):
        packed_attention_forward(nn.Identity(), part, part, part, **bounds, **asked)


def test_throughput_sees_no_padding(student: Student) -> None:
    from lightning_jv5.callbacks.throughput import _computed_and_kept_tokens

    texts = {
        "query": RaggedTexts.from_lists([[1] * 3, [1] * 9]),
        "document": RaggedTexts.from_lists([[1] * 2, [1] * 5]),
    }
    for attention, share in (("packed", 0.0), (None, pytest.approx(1 - 19 / 36))):
        module: Any = SimpleNamespace(student=student("bert", attention=attention, max_tokens_per_chunk=100))
        computed, kept = _computed_and_kept_tokens(module, SimpleNamespace(texts=texts))  # type: ignore[arg-type]
        assert 1 - kept / computed == share
