from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from lightning_jv5.data.batches import RaggedTexts
from lightning_jv5.models.embedder import Embedder
from lightning_jv5.models.pooling import pool
from lightning_jv5.rebuildable import describe, rebuild
from tests.tiny_models import (
    TEXTS,
    VOCABULARY,
    save_tiny_backbone,
    save_tiny_sentence_transformer,
    save_tiny_tokenizer,
    tiny_config,
)

FAMILIES = {"bert": "cls", "qwen3": "last", "eurobert": "mean"}


def make(folder: Path, family: str = "bert", **options: Any) -> Embedder:
    options.setdefault("pooling", FAMILIES[family])
    return Embedder(save_tiny_backbone(folder, family), **options)


def padded_embeddings(embedder: Embedder, texts: RaggedTexts, *, left: bool = False) -> torch.Tensor:
    """All texts in one batch, padded to the longest, with positions counted from each text's first token."""
    rows, masks, width = texts.token_ids.split(texts.lengths.tolist()), [], int(texts.lengths.max())
    ids = torch.zeros(len(rows), width, dtype=torch.int64)
    masks = torch.zeros_like(ids)
    for row, tokens in enumerate(rows):
        place = slice(width - len(tokens), width) if left else slice(0, len(tokens))
        ids[row, place] = tokens
        masks[row, place] = 1
    positions = (masks.cumsum(1) - 1).clamp(min=0)
    output = embedder.backbone(input_ids=ids, attention_mask=masks, position_ids=positions).last_hidden_state
    return F.normalize(pool(output, masks, embedder.pooling), dim=-1)


def loss_and_gradients(embedder: Embedder, embeddings: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    direction = torch.randn(embeddings.shape, generator=torch.Generator().manual_seed(0))
    loss = (embeddings * direction).sum() + (embeddings @ embeddings.T).pow(3).sum()
    embedder.zero_grad()
    loss.backward()
    gradients = {}
    for name, weights in embedder.named_parameters():
        assert weights.grad is not None, f"{name} is unused"
        gradients[name] = weights.grad.clone()
    return loss.detach(), gradients


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("max_tokens", [1, 20, 16384])
def test_chunks_equal_one_padded_batch_in_output_and_every_gradient(
    tmp_path: Path, family: str, recompute: bool, max_tokens: int
) -> None:
    embedder = make(tmp_path, family, recompute=recompute, max_tokens_per_chunk=max_tokens, dropout=0.0).train()
    texts = embedder.tokenization.ragged(TEXTS, "document")
    assert max_tokens == 16384 or len(embedder.plan(texts.lengths)) > 1
    ours, reference = embedder(texts), padded_embeddings(embedder, texts)
    torch.testing.assert_close(ours, reference, atol=1e-5, rtol=1e-5)
    (loss, gradients), (expected_loss, expected) = (
        loss_and_gradients(embedder, embeddings) for embeddings in (ours, reference)
    )
    torch.testing.assert_close(loss, expected_loss, atol=1e-5, rtol=1e-5)
    for name, gradient in gradients.items():
        torch.testing.assert_close(
            gradient, expected[name], atol=1e-5, rtol=1e-4, msg=lambda text, name=name: name + text
        )


@pytest.mark.parametrize(("trained", "rows", "lookups"), [(True, 100, 1), (True, 20, 3), (False, 100, 0)])
def test_trained_embedding_table_is_looked_up_for_as_many_tokens_at_once_as_it_has_rows(
    tmp_path: Path, trained: bool, rows: int, lookups: int
) -> None:
    embedder = make(tmp_path, max_tokens_per_chunk=14, dropout=0.0)
    table = embedder.backbone.embeddings.word_embeddings.requires_grad_(trained)
    table.num_embeddings = rows
    seen: list[int] = []
    embedder.backbone.register_forward_pre_hook(
        lambda _, __, inputs: seen.append(0) if "input_ids" in inputs else None, with_kwargs=True
    )
    table.register_forward_hook(lambda *_: seen.append(1))
    texts = embedder.tokenization.ragged(TEXTS, "document")
    chunks = len(embedder.plan(texts.lengths))
    embedder(texts)
    assert seen == [1] * lookups if trained else seen == [0, 1] * chunks
    seen.clear()
    with torch.no_grad():
        embedder(texts)
    assert seen == [0, 1] * chunks


@pytest.mark.parametrize("family", FAMILIES)
def test_left_padded_batch_gives_the_same_embeddings(tmp_path: Path, family: str) -> None:
    embedder = make(tmp_path, family)
    texts = embedder.tokenization.ragged(TEXTS, "document")
    with torch.no_grad():
        reference = padded_embeddings(embedder, texts, left=True)
        torch.testing.assert_close(embedder(texts), reference, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_unpadded_chunk_needs_no_mask(tmp_path: Path, family: str) -> None:
    embedder = make(tmp_path, family)
    ids = torch.randint(5, 25, (3, 9), generator=torch.Generator().manual_seed(0))
    mask = torch.ones(3, 9, dtype=torch.bool)
    with torch.no_grad():
        torch.testing.assert_close(
            embedder._embed_chunk(ids, mask, False), embedder._embed_chunk(ids, mask, True), atol=1e-6, rtol=1e-6
        )


@pytest.mark.parametrize("family", FAMILIES)
def test_recompute_draws_the_same_dropout(tmp_path: Path, family: str) -> None:
    found = []
    for recompute in (False, True):
        embedder = make(tmp_path, family, recompute=recompute, max_tokens_per_chunk=20, dropout=0.2).train()
        texts = embedder.tokenization.ragged(TEXTS, "document")
        torch.manual_seed(3)
        found.append(loss_and_gradients(embedder, embedder(texts)))
    torch.testing.assert_close(found[0], found[1], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_dropout_is_live_in_training_and_off_in_evaluation(tmp_path: Path, family: str) -> None:
    embedder = make(tmp_path, family, dropout=0.2)
    texts = embedder.tokenization.ragged(TEXTS, "document")
    assert not torch.allclose(embedder.train()(texts), embedder(texts))
    assert torch.equal(embedder.eval()(texts), embedder(texts))


def test_last_token_pooling_reads_the_end_token_after_truncation_too(tmp_path: Path) -> None:
    embedder = make(tmp_path, "qwen3", max_length=5)
    texts = embedder.tokenization.ragged([TEXTS[0], TEXTS[2]], "document")
    last = texts.token_ids[texts.lengths.cumsum(0) - 1]
    assert last.tolist() == [VOCABULARY["[END]"]] * 2
    embeddings = embedder(texts)
    with torch.no_grad():
        embedder.backbone.embed_tokens.weight[VOCABULARY["[END]"]] += 1.0
    assert not torch.allclose(embedder(texts), embeddings)


def test_order_is_that_of_the_texts_for_any_chunks(tmp_path: Path) -> None:
    embedder = make(tmp_path)
    texts = embedder.tokenization.ragged(TEXTS, "document")
    with torch.no_grad():
        alone = torch.cat([embedder(embedder.tokenization.ragged([text], "document")) for text in TEXTS])
        torch.testing.assert_close(embedder(texts), alone, atol=1e-6, rtol=1e-5)
        chunks = [torch.tensor([4, 1]), torch.tensor([5]), torch.tensor([0, 3, 2])]
        torch.testing.assert_close(embedder(texts, chunks), alone, atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(embedder.encode(TEXTS), alone, atol=1e-6, rtol=1e-5)
    with pytest.raises(ValueError, match="every text must be in exactly one chunk"):
        embedder(texts, chunks[:2])


def test_no_texts_give_no_rows(tmp_path: Path) -> None:
    embedder = make(tmp_path)
    assert embedder.encode([]).shape == (0, 32)
    assert embedder.encode([], truncate_dim=8).shape == (0, 8)
    assert embedder(RaggedTexts.from_lists([])).shape == (0, 32)


def test_embeddings_have_unit_length_only_if_asked(tmp_path: Path) -> None:
    torch.testing.assert_close(make(tmp_path).encode(TEXTS).norm(dim=1), torch.ones(len(TEXTS)))
    assert (make(tmp_path, normalize=False).encode(TEXTS).norm(dim=1) > 1.1).all()


def test_embeddings_are_float32_under_autocast(tmp_path: Path) -> None:
    embedder = Embedder(save_tiny_sentence_transformer(tmp_path, dense=5))
    with torch.autocast("cpu", torch.bfloat16):
        assert embedder(embedder.tokenization.ragged(TEXTS, "query")).dtype == torch.float32


def test_truncated_embeddings_are_normalised_again(tmp_path: Path) -> None:
    embedder = make(tmp_path)
    expected = F.normalize(embedder.encode(TEXTS)[:, :8], dim=-1)
    torch.testing.assert_close(embedder.encode(TEXTS, truncate_dim=8), expected)


def test_encode_restores_every_modules_mode(tmp_path: Path) -> None:
    embedder = make(tmp_path, dropout=0.5).train()
    embedder.dense.eval()
    modes = [part.training for part in embedder.modules()]
    torch.testing.assert_close(embedder.encode(TEXTS), embedder.encode(TEXTS), atol=0, rtol=0)
    assert [part.training for part in embedder.modules()] == modes
    assert not embedder.encode(TEXTS).requires_grad


def test_progress_counts_texts(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    make(tmp_path).encode(TEXTS, progress=True)
    assert f"{len(TEXTS)}/{len(TEXTS)}" in capfd.readouterr().err


def test_settings_win_over_the_folder(tmp_path: Path) -> None:
    path = save_tiny_sentence_transformer(tmp_path, prompts={"query": "query: "}, max_seq_length=16)
    assert Embedder(path).tokenization.prompts == {"query": "query: ", "document": ""}
    assert Embedder(path, prompts={}).tokenization.prompts == {"query": "", "document": ""}
    assert Embedder(path, max_length={"query": 4}).tokenization.max_length == {"query": 4, "document": 16}
    with pytest.warns(UserWarning, match="pooling 'last' was asked for, but .* was trained with 'mean'; using 'last'"):
        assert Embedder(path, pooling="last").pooling == "last"


def test_max_length_is_the_models_positions_by_default(tmp_path: Path) -> None:
    assert make(tmp_path).tokenization.max_length == {"query": 64, "document": 64}


def test_random_embedder_takes_vocabulary_and_seed(tmp_path: Path) -> None:
    tokenizer = save_tiny_tokenizer(tmp_path)
    config = {name: value for name, value in tiny_config().items() if name not in ("vocab_size", "pad_token_id")}
    found = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        embedder = Embedder(config=config, tokenizer=tokenizer, pooling="mean")
        found.append(embedder.encode(TEXTS))
    assert embedder.backbone.config.vocab_size == len(VOCABULARY)
    assert torch.equal(found[0], found[1])
    assert not torch.allclose(found[0], found[2])


def test_padding_token_that_is_also_the_end_token_is_trained(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    save_tiny_tokenizer(tmp_path, end_token=False)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    tokenizer.pad_token = tokenizer.eos_token
    tokenizer.save_pretrained(tmp_path)
    config = {name: value for name, value in tiny_config("qwen3").items() if name != "pad_token_id"}
    embedder = Embedder(config=config, tokenizer=str(tmp_path), pooling="last")
    embedder(embedder.tokenization.ragged(TEXTS, "query"))[:, 0].sum().backward()
    assert embedder.backbone.embed_tokens.weight.grad[tokenizer.eos_token_id].any()


def test_embedder_is_rebuilt_from_plain_data(tmp_path: Path) -> None:
    embedder = make(tmp_path, "eurobert", layers=[1], prompts={"query": "query: "}, max_length=7)
    again = rebuild(describe(embedder))
    assert torch.equal(again.encode(TEXTS, "query"), embedder.encode(TEXTS, "query"))


def test_wrong_arguments_are_named(tmp_path: Path) -> None:
    path, tokenizer = save_tiny_backbone(tmp_path / "model"), save_tiny_tokenizer(tmp_path / "tokenizer")
    cases: list[tuple[dict[str, Any], str]] = [
        ({}, "need exactly one: path for existing weights, config for random ones"),
        ({"path": path, "config": tiny_config()}, "need exactly one"),
        ({"config": tiny_config()}, "Got config without tokenizer"),
        ({"path": path}, "Got no pooling, .*Set pooling to one of last, mean, cls"),
        ({"path": path, "pooling": "max"}, "Got pooling 'max'; need one of last, mean, cls"),
        ({"path": path, "pooling": "mean", "prompts": {"querry": ""}}, "Got prompts 'querry'.*Did you mean 'query'"),
        ({"path": path, "pooling": "mean", "max_length": 65}, "Got max_length 65 for query, .*only 64 positions"),
        ({"path": path, "pooling": "mean", "max_length": {"doc": 5}}, "Got max_length 'doc'.*Did you mean 'document'"),
        ({"path": path, "pooling": "mean", "max_tokens_per_chunk": 0}, "Got max_tokens_per_chunk 0"),
        (
            {"config": tiny_config(vocab_size=9), "tokenizer": tokenizer, "pooling": "mean"},
            f"token ids up to {len(VOCABULARY) - 1}, but the model's vocab_size is 9",
        ),
    ]
    for arguments, message in cases:
        with pytest.raises(ValueError, match=message):
            Embedder(**arguments)


def test_an_empty_text_keeps_its_place_and_is_what_the_tokenizer_adds(tmp_path: Path) -> None:
    embedder = make(tmp_path)
    cat, empty, dog = embedder.encode(["a cat", "", "the dog"])
    assert torch.isfinite(empty).all()
    torch.testing.assert_close(torch.stack([cat, dog]), embedder.encode(["a cat", "the dog"]))
    torch.testing.assert_close(embedder.encode([""])[0], empty)


def test_wrong_texts_are_named(tmp_path: Path) -> None:
    embedder = make(tmp_path)
    with pytest.raises(ValueError, match="Got one string, 'a cat'; need a list"):
        embedder.encode("a cat")
    with pytest.raises(ValueError, match="Text 1 is a int, 3; need strings"):
        embedder.encode(["a", 3])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="Did you mean 'query'"):
        embedder.encode([], "queries")
    with pytest.raises(ValueError, match="Got truncate_dim 33; embeddings have 32"):
        embedder.encode(["a"], truncate_dim=33)
