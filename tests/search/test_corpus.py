import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from lightning_jv5 import Teacher
from lightning_jv5.data import Docstrings, LocalFiles
from lightning_jv5.data.embed_columns import embed_columns
from lightning_jv5.encoder import Encoder, load
from lightning_jv5.search import corpus as module
from lightning_jv5.search.corpus import open_corpus
from tests.tiny_models import TEXTS, save_tiny_sentence_transformer


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LIGHTNING_JV5_CACHE", str(tmp_path / "cache"))
    write("corpus.jsonl", TEXTS)
    return tmp_path


def write(name: str, texts: list[str], column: str = "text") -> str:
    Path(name).write_text("".join(json.dumps({column: text, "query": text}) + "\n" for text in texts))
    return name


def write_predicted(folder: str, vectors: torch.Tensor, order: list[int]) -> str:
    """Lay vectors out as EmbeddingWriter does, in the order in which two ranks may have written them."""
    Path(folder).mkdir()
    flat = pa.array(vectors[order].numpy().reshape(-1))
    columns = {"row": pa.array(order), "embedding": pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])}
    pq.write_table(pa.table(columns), Path(folder) / "embeddings-0-0.parquet")
    facts = {"rows": len(order), "dim": vectors.shape[1], "dtype": str(vectors.dtype).removeprefix("torch.")}
    (Path(folder) / "embeddings.json").write_text(json.dumps(facts))
    return folder


# Texts that are encoded


@pytest.mark.parametrize("column", ["text", "document"])
def test_texts_of_a_file_are_encoded_as_documents(folder: Path, encoder: Encoder, column: str) -> None:
    found = open_corpus(write("file.jsonl", TEXTS, column), encoder)
    assert list(found.texts) == TEXTS
    expected = encoder.encode_document(TEXTS, task="retrieval")  # what the model is for, as it has that adapter
    np.testing.assert_allclose(found.vectors["retrieval"], expected, atol=1e-6)
    assert (found.dim, found.origin, found.stored_as) == (32, "file.jsonl", "float32")


def test_a_column_of_another_name_can_be_named(folder: Path, encoder: Encoder) -> None:
    write("file.jsonl", TEXTS, "body")
    assert list(open_corpus("file.jsonl", encoder, columns={"text": "body"}).texts) == TEXTS


def test_lines_of_a_text_file_are_texts(folder: Path, encoder: Encoder) -> None:
    Path("lines.txt").write_text("the cat\n\n  a dog \n")
    assert list(open_corpus("lines.txt", encoder).texts) == ["the cat", "  a dog "]


def test_only_the_end_of_a_line_ends_a_text(folder: Path, encoder: Encoder) -> None:
    Path("lines.txt").write_bytes("the\fcat\u2028and\x85a\x1cdog\r\na tree\r\n".encode())
    assert list(open_corpus("lines.txt", encoder).texts) == ["the\fcat\u2028and\x85a\x1cdog", "a tree"]


def test_docstrings_are_searched_by_default(folder: Path, encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        module, "Docstrings", lambda split, rows: Docstrings(split, rows=8, packages=["peft"], heldout=10)
    )
    assert len(open_corpus(None, encoder).texts) == 8


def test_every_task_that_is_asked_for_is_encoded(folder: Path, encoder: Encoder) -> None:
    found = open_corpus("corpus.jsonl", encoder, tasks=["retrieval", None])
    assert list(found.vectors) == ["retrieval", None]
    for task, vectors in found.vectors.items():
        np.testing.assert_allclose(vectors, encoder.encode_document(TEXTS, task=task), atol=1e-6)


def test_a_model_without_an_adapter_for_retrieval_is_used_as_it_is(folder: Path) -> None:
    encoder = load(save_tiny_sentence_transformer("plain"), "cpu")
    assert list(open_corpus("corpus.jsonl", encoder).vectors) == [None]


def test_what_was_encoded_is_kept_while_texts_and_model_are_the_same(
    folder: Path, encoder: Encoder, capsys: pytest.CaptureFixture[str]
) -> None:
    def encoded(model: Encoder, **options: Any) -> bool:
        open_corpus("corpus.jsonl", model, **options)
        said = capsys.readouterr()
        assert ("Encoding" in said.out) == ("text/s" in said.err)
        return "Encoding" in said.out

    assert encoded(encoder)
    assert not encoded(encoder)
    assert encoded(encoder, tasks=[None])
    assert encoded(load(save_tiny_sentence_transformer("other", seed=7), "cpu"))
    assert encoded(load(save_tiny_sentence_transformer("prompted", seed=7, prompts={"document": "the : "}), "cpu"))
    write("corpus.jsonl", [*TEXTS, "red"])
    assert encoded(encoder)


def test_a_cache_of_other_vectors_is_not_believed(folder: Path, encoder: Encoder) -> None:
    expected = open_corpus("corpus.jsonl", encoder).vectors["retrieval"]
    [kept] = Path("cache/search").glob("*.npy")
    np.save(kept, np.roll(np.load(kept), 1, axis=0))
    torch.testing.assert_close(open_corpus("corpus.jsonl", encoder).vectors["retrieval"], expected)


# Vectors that are there


@pytest.mark.parametrize("precision", ["float32", "float16", "int8"])
@pytest.mark.parametrize("dim", [None, 16])
def test_a_folder_that_embed_wrote_brings_its_vectors(
    folder: Path, model: str, encoder: Encoder, capsys: pytest.CaptureFixture[str], precision: Any, dim: int | None
) -> None:
    embed_columns(LocalFiles("corpus.jsonl"), Teacher(model), "out", precision=precision, truncate_dim=dim)
    found = open_corpus("out", encoder)
    assert list(found.texts) == TEXTS
    assert found.stored_as == precision
    expected = encoder.encode_document(TEXTS, truncate_dim=dim)
    [(task, vectors)] = found.vectors.items()
    assert task is None  # the folder has an adapter, which embed knows nothing of
    np.testing.assert_allclose(vectors, expected, atol=5e-3)
    assert "Encoding" not in capsys.readouterr().out


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_folder_of_the_embedding_writer_is_joined_with_its_texts(
    folder: Path, encoder: Encoder, dtype: torch.dtype
) -> None:
    vectors = torch.from_numpy(encoder.encode_document(TEXTS, task="retrieval")).to(dtype)
    write_predicted("predicted", vectors, [3, 0, 1, 5, 4, 2])
    found = open_corpus("predicted", encoder, texts="corpus.jsonl")
    assert list(found.vectors) == ["retrieval"]
    torch.testing.assert_close(found.vectors["retrieval"], vectors.float())
    assert (list(found.texts), found.stored_as) == (TEXTS, str(dtype).removeprefix("torch."))


def test_vectors_of_another_model_or_of_other_texts_are_refused(folder: Path, model: str, encoder: Encoder) -> None:
    embed_columns(LocalFiles("corpus.jsonl"), Teacher(model), "out")
    other = load(save_tiny_sentence_transformer("other", seed=7), "cpu")
    with pytest.raises(
        ValueError, match=r"'out': the vector in row \d .* has a cosine of .* need 0.99. Give the model"
    ):
        open_corpus("out", other)
    with pytest.raises(ValueError, match="the vector in row"):
        open_corpus("out", encoder, tasks=["retrieval"])
    write_predicted("predicted", torch.from_numpy(encoder.encode_document(TEXTS)), list(range(6)))
    with pytest.raises(ValueError, match="the vector in row"):
        open_corpus("predicted", encoder, texts=write("turned.jsonl", TEXTS[::-1]))
    with pytest.raises(ValueError, match="holds 6 vectors for 5 texts"):
        open_corpus("predicted", encoder, texts=write("fewer.jsonl", TEXTS[:5]))
    small = load(save_tiny_sentence_transformer("small", dense=8), "cpu")
    with pytest.raises(ValueError, match="holds vectors of 32 dims; the model gives 8"):
        open_corpus("out", small)


def test_vectors_of_the_model_alone_fit_an_adapter_of_it_under_no_task(folder: Path, model: str, adapter: str) -> None:
    embed_columns(LocalFiles("corpus.jsonl"), Teacher(model), "out")
    encoder = load(adapter, "cpu")
    assert list(open_corpus("out", encoder, tasks=[None]).vectors) == [None]
    with pytest.raises(ValueError, match="the vector in row"):
        open_corpus("out", encoder)


def test_folders_that_cannot_be_searched_say_why(folder: Path, model: str, encoder: Encoder) -> None:
    rows, teacher = LocalFiles("corpus.jsonl"), Teacher(model)
    embed_columns(rows, teacher, "bits", precision="binary")
    with pytest.raises(ValueError, match="'bits' holds sign bits, which leave nothing to compare them with"):
        open_corpus("bits", encoder)
    embed_columns(rows, teacher, "queries", columns={"query": "query"})
    with pytest.raises(ValueError, match="holds vectors of query, all as queries; need some of documents"):
        open_corpus("queries", encoder)
    lists = [{"text": text, "negatives": [text]} for text in TEXTS]
    Path("lists.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lists))
    embed_columns(LocalFiles("lists.jsonl"), teacher, "lists", columns={"negatives": "document"})
    with pytest.raises(ValueError, match="'lists': column 'negatives' has lists of texts"):
        open_corpus("lists", encoder)
    write_predicted("predicted", torch.zeros(6, 32), list(range(6)))
    with pytest.raises(ValueError, match="holds vectors without their texts"):
        open_corpus("predicted", encoder)


# What is wrong


@pytest.mark.parametrize(
    ("path", "options", "message"),
    [
        ("corpus.json", {}, "No file 'corpus.json'.*Did you mean 'corpus.jsonl'"),
        ("nothing.txt", {}, "Cannot read 'nothing.txt'.*Give a UTF-8 file"),
        ("empty.txt", {}, "'empty.txt' has no text to search"),
        ("pairs.jsonl", {}, "'pairs.jsonl' has 1 rows with the columns text1, text2; need texts in document or text"),
        ("corpus.jsonl", {"texts": "corpus.jsonl"}, "Got texts 'corpus.jsonl' for 'corpus.jsonl', which has its own"),
        ("corpus.jsonl", {"tasks": ["sorting"]}, "Got task 'sorting'; the embedder has adapters for retrieval"),
    ],
)
def test_what_is_no_corpus_is_named(
    folder: Path, encoder: Encoder, path: str, options: dict[str, Any], message: str
) -> None:
    Path("empty.txt").write_text("\n")
    Path("pairs.jsonl").write_text('{"text1": "a", "text2": "b"}\n')
    with pytest.raises(ValueError, match=message):
        open_corpus(path, encoder, **options)


def test_several_tasks_of_vectors_that_are_there_are_refused(folder: Path, model: str, encoder: Encoder) -> None:
    embed_columns(LocalFiles("corpus.jsonl"), Teacher(model), "out")
    with pytest.raises(ValueError, match="Got the tasks none, retrieval for 'out', whose vectors are of one"):
        open_corpus("out", encoder, tasks=[None, "retrieval"])
