import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.util.quantization import quantize_embeddings

import lightning_jv5
from lightning_jv5 import Embedder
from lightning_jv5.data import pack_signs
from lightning_jv5.encoder import Encoder, load, similarity
from lightning_jv5.metrics import View
from tests.models.tiny_adapters import write_adapter
from tests.tiny_models import TEXTS, save_tiny_backbone, save_tiny_sentence_transformer

PROMPTS = {"query": "who : ", "document": "the document : "}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model with prompts and two adapters, laid out as ``assemble`` does."""
    place = tmp_path_factory.mktemp("encoder") / "model"
    model = save_tiny_sentence_transformer(place, prompts=PROMPTS, default_prompt_name="document")
    prompts = {"query": "where : ", "document": ""}
    write_adapter(place / "adapters" / "retrieval", model, seed=1, described={"task": "retrieval", "prompts": prompts})
    write_adapter(place / "adapters" / "clustering", model, seed=2)
    return model


@pytest.fixture(scope="module")
def encoder(folder: str) -> Encoder:
    return load(folder, device="cpu")


@pytest.fixture(scope="module")
def theirs(folder: str) -> SentenceTransformer:
    return SentenceTransformer(folder, device="cpu")


def test_encoding_equals_the_embedder_of_the_folder(folder: str, encoder: Encoder) -> None:
    embedder = Embedder(folder)
    for role in ("query", "document"):
        expected = embedder.encode(TEXTS, role, truncate_dim=8).numpy()
        np.testing.assert_allclose(encoder.encode(TEXTS, role=role, truncate_dim=8), expected, atol=1e-6)
    assert encoder.dim == 32
    assert not any(parameter.requires_grad for parameter in encoder.embedder.parameters())


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"prompt_name": "query"},
        {"prompt_name": "document", "batch_size": 2},
        {"prompt": "red green "},
        {"prompt": "red green ", "prompt_name": "query"},
        {"truncate_dim": 8, "normalize_embeddings": False},
        {"truncate_dim": 8},
        {"convert_to_tensor": True},
        {"convert_to_numpy": False},
        {"precision": "binary"},
        {"precision": "ubinary", "truncate_dim": 16},
        {"device": "cpu", "show_progress_bar": False, "precision": "float32"},
    ],
    ids=str,
)
def test_calls_give_what_sentence_transformers_gives(
    encoder: Encoder, theirs: SentenceTransformer, options: dict[str, Any]
) -> None:
    unit = {"normalize_embeddings": True}
    for inputs in (TEXTS, TEXTS[2]):
        found, expected = encoder.encode(inputs, **options), theirs.encode(inputs, **{**unit, **options})
        assert type(found) is type(expected)
        if isinstance(found, list):
            found, expected = torch.stack(found), torch.stack(expected)
        assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
        np.testing.assert_allclose(np.asarray(found), np.asarray(expected), atol=1e-5)


def test_queries_and_documents_have_the_prompts_that_sentence_transformers_gives_them(
    encoder: Encoder, theirs: SentenceTransformer
) -> None:
    for name in ("encode_query", "encode_document"):
        found, expected = (
            getattr(model, name)(TEXTS, truncate_dim=16, normalize_embeddings=True) for model in (encoder, theirs)
        )
        np.testing.assert_allclose(found, expected, atol=1e-5)
    assert not np.allclose(encoder.encode_query(TEXTS), encoder.encode_document(TEXTS), atol=1e-2)


@pytest.mark.parametrize("name", ["encode", "encode_query", "encode_document"])
def test_arguments_by_position_are_those_of_sentence_transformers(
    encoder: Encoder, theirs: SentenceTransformer, name: str
) -> None:
    found, expected = (
        getattr(model, name)(TEXTS, None, "red green ", 64, False, normalize_embeddings=True)
        for model in (encoder, theirs)
    )
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_every_argument_of_sentence_transformers_is_there_or_named_as_left_out() -> None:
    ours, theirs = (inspect.signature(kind.encode).parameters for kind in (Encoder, SentenceTransformer))
    left_out = [argument for argument in theirs if argument not in ours]
    assert left_out == ["output_value", "pool", "chunk_size", "kwargs"]
    assert [argument for argument in ours if argument in theirs] == [one for one in theirs if one in ours]
    assert set(ours) - set(theirs) == {"task", "role"}
    page = (Path(__file__).parent.parent / "docs" / "search.md").read_text()
    assert all(f"`{argument}`" in page for argument in left_out[:-1])


def test_a_misspelt_argument_is_no_option(encoder: Encoder) -> None:
    with pytest.raises(TypeError, match="truncate_dims"):
        encoder.encode_query(TEXTS, truncate_dims=8)


def test_a_model_that_does_not_normalise_is_normalised_unless_turned_off(tmp_path: Path) -> None:
    model = save_tiny_sentence_transformer(tmp_path / "model", normalize=False, dense=24)
    ours, theirs = load(model, "cpu"), SentenceTransformer(model, device="cpu")
    raw = theirs.encode(TEXTS, truncate_dim=8)
    np.testing.assert_allclose(ours.encode(TEXTS, truncate_dim=8, normalize_embeddings=False), raw, atol=1e-5)
    unit = theirs.encode(TEXTS, truncate_dim=8, normalize_embeddings=True)
    np.testing.assert_allclose(ours.encode(TEXTS, truncate_dim=8), unit, atol=1e-5)
    assert np.abs(np.linalg.norm(raw, axis=1) - 1).min() > 0.01


def test_a_backbone_alone_needs_its_pooling(tmp_path: Path) -> None:
    model = save_tiny_backbone(tmp_path / "model")
    with pytest.raises(ValueError, match="pooling"):
        load(model, "cpu")
    expected = Embedder(model, pooling="cls").encode(TEXTS).numpy()
    np.testing.assert_allclose(load(model, "cpu", pooling="cls").encode(TEXTS), expected, atol=1e-6)


@pytest.mark.parametrize("dim", [32, 16, 12])
def test_sign_bits_are_those_of_our_codes_and_of_sentence_transformers(encoder: Encoder, dim: int) -> None:
    floats = encoder.encode(TEXTS, truncate_dim=dim)
    codes = encoder.encode(TEXTS, truncate_dim=dim, precision="ubinary")
    assert codes.tolist() == pack_signs(torch.from_numpy(floats)).tolist()
    for precision in ("ubinary", "binary"):
        found, expected = (
            encoder.encode(TEXTS, truncate_dim=dim, precision=precision),
            quantize_embeddings(floats, precision),
        )
        assert found.dtype == expected.dtype
        assert found.tolist() == expected.tolist()


def test_int8_keeps_the_order_of_cosines_and_needs_no_other_texts(encoder: Encoder) -> None:
    codes = encoder.encode(TEXTS, precision="int8")
    assert codes.dtype == np.int8
    assert np.abs(codes.astype(int)).max(axis=1).tolist() == [127] * len(TEXTS)
    np.testing.assert_array_equal(encoder.encode(TEXTS[1], precision="int8"), codes[1])
    exact = encoder.similarity(encoder.encode(TEXTS), encoder.encode(TEXTS))
    torch.testing.assert_close(encoder.similarity(codes, codes, "int8"), exact, atol=5e-3, rtol=0)
    view = View(precision="int8")
    expected = view.document(view.cut(torch.from_numpy(encoder.encode(TEXTS))))
    torch.testing.assert_close(torch.nn.functional.normalize(torch.from_numpy(codes).float(), dim=-1), expected)


@pytest.mark.parametrize("precision", ["float32", "int8", "binary", "ubinary"])
def test_similarity_is_the_cosine_of_what_is_stored(encoder: Encoder, precision: Any) -> None:
    one, other = (encoder.encode(texts, precision=precision) for texts in (TEXTS[:2], TEXTS))
    found = encoder.similarity(one, other, precision)
    name = {"float32": "float", "int8": "int8"}.get(precision, "binary")
    view = View(precision=name)
    whole = torch.from_numpy(encoder.encode(TEXTS)).double()
    stored = view.document(view.cut(whole)).double()
    stored = stored / stored.norm(dim=1, keepdim=True)
    torch.testing.assert_close(found.double(), stored[:2] @ stored.T, atol=1e-5, rtol=0)
    torch.testing.assert_close(encoder.similarity(list(one), other[0], precision), found[:, :1])


def test_similarity_equals_that_of_sentence_transformers(encoder: Encoder, theirs: SentenceTransformer) -> None:
    vectors = encoder.encode(TEXTS)
    torch.testing.assert_close(encoder.similarity(vectors, vectors), theirs.similarity(vectors, vectors))


def test_a_task_has_its_own_adapter_and_prompts(folder: str, encoder: Encoder) -> None:
    assert sorted(encoder.tasks) == ["clustering", "retrieval"]
    assert encoder.task is None
    expected = Embedder(folder, task="retrieval").encode(TEXTS, "query").numpy()
    for model in (encoder, load(folder, "cpu", task="retrieval")):
        np.testing.assert_allclose(model.encode_query(TEXTS, task="retrieval"), expected, atol=1e-6)
    assert load(folder, "cpu", task="retrieval").task == "retrieval"
    prompted = encoder.encode(TEXTS, role="query", prompt="where : ", task="retrieval")
    np.testing.assert_allclose(prompted, expected, atol=1e-6)
    plain = encoder.encode_query(TEXTS)
    assert not np.allclose(plain, expected, atol=1e-2)
    np.testing.assert_array_equal(encoder.encode_query(TEXTS), plain)  # a call leaves nothing behind


def test_the_folder_of_an_adapter_alone_is_loaded_with_its_model(folder: str, tmp_path: Path) -> None:
    alone = write_adapter(tmp_path / "retrieval", folder, seed=1, base=folder)
    found = load(str(alone), "cpu")
    assert found.task == "retrieval"
    np.testing.assert_allclose(
        found.encode(TEXTS), Embedder(folder, task="retrieval", prompts=PROMPTS).encode(TEXTS), atol=1e-6
    )


def test_the_encoders_own_dims_hold_where_a_call_names_none(folder: str) -> None:
    short = load(folder, "cpu", truncate_dim=8)
    assert short.dim == 8
    assert short.encode(TEXTS).shape == (len(TEXTS), 8)
    assert short.encode(TEXTS, truncate_dim=16).shape == (len(TEXTS), 16)


def test_no_texts_are_no_rows_and_arrays_of_texts_are_texts(encoder: Encoder) -> None:
    assert encoder.encode([], truncate_dim=12).shape == (0, 12)
    assert encoder.encode([], precision="ubinary").shape == (0, 4)
    np.testing.assert_array_equal(encoder.encode(np.array(TEXTS)), encoder.encode(TEXTS))


def test_a_bar_is_shown_when_asked_for(encoder: Encoder, capsys: pytest.CaptureFixture[str]) -> None:
    encoder.encode(TEXTS)
    encoder.encode(TEXTS, show_progress_bar=False)
    assert "text/s" not in capsys.readouterr().err
    encoder.encode(TEXTS, show_progress_bar=True)
    assert f"{len(TEXTS)}/{len(TEXTS)}" in capsys.readouterr().err


def test_a_bar_comes_by_itself_where_it_takes_long(
    encoder: Encoder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("lightning_jv5.models.text_encoder._BAR_DELAY", 1e-9)
    encoder.encode(TEXTS, batch_size=1)
    assert "text/s" in capsys.readouterr().err


def test_a_forward_pass_has_at_most_a_batch(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    embed = encoder.embedder._embed_chunk

    def counting(*laid_out: Any) -> Any:
        embedded = embed(*laid_out)
        sizes.append(len(embedded))
        return embedded

    monkeypatch.setattr(encoder.embedder, "_embed_chunk", counting)
    encoder.encode(TEXTS, batch_size=2)
    assert max(sizes) == 2
    assert sum(sizes) == len(TEXTS)
    sizes.clear()
    encoder.encode(TEXTS, batch_size=None)
    assert max(sizes) == len(TEXTS)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "uint8"}, "Got precision 'uint8'; need one of float32, int8, binary, ubinary"),
        ({"prompt_name": "qery"}, "Got prompt_name 'qery'; need one of query, document. Did you mean 'query'"),
        ({"role": "qery", "prompt": "x"}, "Got role 'qery'; need one of query, document"),
        ({"truncate_dim": 33}, "Got truncate_dim 33; embeddings have 32"),
        ({"batch_size": 0}, "Got batch_size 0; need at least 1"),
        ({"task": "sorting"}, "Got task 'sorting'; the embedder has adapters for"),
        ({"device": "cdua"}, r"Got device .cdua.; need one such as cpu, cuda or cuda:1\. Did you mean .cuda.\?"),
        ({"device": "cuda:99"}, r"Got device cuda:99 on a machine with \d+ GPUs"),
    ],
    ids=str,
)
def test_wrong_arguments_are_named(encoder: Encoder, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        encoder.encode(TEXTS, **options)


def test_an_encoder_has_at_most_the_dims_of_its_model(folder: str) -> None:
    with pytest.raises(ValueError, match="Got truncate_dim 64; embeddings have 32"):
        load(folder, "cpu", truncate_dim=64)


@pytest.mark.parametrize(
    ("one", "other", "precision", "message"),
    [
        (
            np.zeros((1, 4), np.uint8),
            np.zeros((1, 4), np.uint8),
            "float32",
            "Got embeddings of torch.uint8 for precision",
        ),
        (np.zeros((1, 4), np.float32), np.zeros((1, 4), np.float32), "binary", "need torch.int8"),
        (np.zeros((1, 4), np.float32), np.zeros((1, 8), np.float32), "float32", "need the same width"),
        (np.zeros((1, 1, 4), np.float32), np.zeros((1, 4), np.float32), "float32", r"need \(texts, width\)"),
        (np.zeros((1, 4), np.float32), np.zeros((1, 4), np.float32), "float16", "Got precision 'float16'"),
    ],
)
def test_similarity_of_what_does_not_fit_is_refused(one: Any, other: Any, precision: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        similarity(one, other, precision)


def test_load_is_a_name_of_the_package(folder: str) -> None:
    assert lightning_jv5.load is load
    assert isinstance(lightning_jv5.load(folder, "cpu"), lightning_jv5.Encoder)
