import itertools
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import ClassLabel, Dataset, load_dataset
from torch import Tensor
from torch.nn import functional as F

from lightning_jv5.data import LocalFiles, Source
from lightning_jv5.data.cache import fingerprint
from lightning_jv5.data.packed_codes import unpack_signs
from lightning_jv5.data.vector_columns import PRECISIONS, sign_bits, vectors
from lightning_jv5.data.vector_manifest import read_manifest
from tests.data.embed_runs import (
    COLUMNS,
    PROMPTS,
    TinyTuples,
    WatchedTeacher,
    embed,
    read,
    watched_teacher,
)
from tests.tiny_data import (
    TEACHER_DIM,
    Recorder,
    TinyPairs,
    TinyTexts,
    quiet_trainer,
    sgd,
    tiny_data,
    tiny_module,
    tiny_teacher,
)


class Rows(Source):
    """Any rows."""

    def __init__(self, **columns: Any) -> None:
        self.columns = columns

    def load(self) -> Dataset:
        rows = Dataset.from_dict(self.columns)
        rows._fingerprint = fingerprint(self.columns)
        return rows


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIGHTNING_JV5_CACHE", str(tmp_path / "cache"))


def texts_of(rows: Dataset, column: str) -> list[str]:
    values = rows[column][:]
    return list(itertools.chain.from_iterable(values)) if isinstance(values[0], list) else values


# What is written


@pytest.mark.parametrize("precision", ["float32", "float16", "int8"])
def test_vectors_are_the_models_under_the_prompt_of_their_role(tmp_path: Path, precision: Any) -> None:
    teacher, rows = watched_teacher(tmp_path), TinyTuples().load()
    embed(tmp_path, precision=precision)
    table = read(tmp_path / "out")
    for column in COLUMNS:
        expected = teacher.encode(texts_of(rows, column), "query" if column == "query" else "document")
        tolerance = {"float32": 1e-6, "float16": 5e-4, "int8": 5e-3}[precision]
        torch.testing.assert_close(
            vectors(table, f"{column}_teacher").float(), expected, atol=tolerance, rtol=0, check_dtype=False
        )
    as_document = teacher.encode(rows["query"][:], "document")
    assert not torch.allclose(vectors(table, "query_teacher").float(), as_document, atol=1e-2)


def test_the_original_columns_are_kept_with_their_features(tmp_path: Path) -> None:
    source = Rows(text=["a cat", "a dog", "a tree"], label=[0, 1, 0])
    rows = source.load().cast_column("label", ClassLabel(names=["animal", "plant"]))

    class Labelled(Source):
        def load(self) -> Dataset:
            return rows

    embed(tmp_path, source=Labelled())
    again = load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "hf"))  # as from the hub
    assert list(again) == ["train"]
    assert again["train"].column_names == ["text", "label", "text_teacher"]
    assert again["train"].features["label"].names == ["animal", "plant"]
    assert again["train"].remove_columns("text_teacher").to_dict() == rows.to_dict()


def test_local_files_read_the_folder_back_in_order(tmp_path: Path) -> None:
    embed(tmp_path, rows_per_shard=3, precision="int8")
    again = LocalFiles(str(tmp_path / "out")).load()
    assert again["id"][:] == list(range(10))
    plain = [*COLUMNS, "id"]
    assert again.select_columns(plain).to_dict() == TinyTuples().load().to_dict()
    table = again.with_format("arrow")[:]
    assert torch.equal(vectors(table, "negatives_teacher"), vectors(read(tmp_path / "out"), "negatives_teacher"))


def test_fewer_dimensions_are_normalised_again(tmp_path: Path) -> None:
    manifest = embed(tmp_path, truncate_dim=12, precision="float32", columns={"document": "document"})
    whole = watched_teacher(tmp_path).encode(TinyTuples().load()["document"][:], "document")
    expected = F.normalize(whole[:, :12], dim=1)
    torch.testing.assert_close(vectors(read(tmp_path / "out"), "document_teacher"), expected)
    column = manifest.columns["document_teacher"]
    assert (column.dim, column.full_dim) == (12, TEACHER_DIM)


def test_binary_packs_the_signs_of_a_dim_that_is_no_multiple_of_eight(tmp_path: Path) -> None:
    embed(tmp_path, truncate_dim=13, precision="binary")
    table = read(tmp_path / "out")
    whole = watched_teacher(tmp_path).encode(TinyTuples().load()["document"][:], "document", truncate_dim=13)
    codes = sign_bits(table, "document_teacher")
    assert codes.shape == (10, 2)
    assert torch.equal(unpack_signs(codes, 13), torch.where(whole >= 0, 1.0, -1.0))


def test_default_columns_are_the_texts_of_each_layout(tmp_path: Path) -> None:
    source = Rows(
        text1=["a cat"], text2=["a dog"], score=[0.5], negative=["a tree"], negative_2=["a mat"], negative_note=["x"]
    )
    manifest = embed(tmp_path, source=source)
    assert {name: column.role for name, column in manifest.columns.items()} == dict.fromkeys(
        ["text1_teacher", "text2_teacher", "negative_teacher", "negative_2_teacher"], "document"
    )


def test_columns_and_suffix_can_be_chosen(tmp_path: Path) -> None:
    manifest = embed(tmp_path, source=TinyTexts(column="text"), columns={"text": "query"}, suffix="_tiny")
    assert list(manifest.columns) == ["text_tiny"]
    expected = watched_teacher(tmp_path).encode(TinyTexts().load()["text"][:], "query")
    torch.testing.assert_close(vectors(read(tmp_path / "out"), "text_tiny").float(), expected, atol=5e-4, rtol=0)


def test_a_shard_whose_rows_have_no_negatives_at_all_is_written(tmp_path: Path) -> None:
    source = Rows(query=["a cat", "a dog", "a mat"], document=["a", "b", "c"], negatives=[[], [], ["a tree"]])
    embed(tmp_path, source=source, rows_per_shard=1, precision="int8", columns={"negatives": "document"})
    assert read(tmp_path / "out")["negatives_teacher"].combine_chunks().value_lengths().to_pylist() == [0, 0, 1]


# The manifest


def test_the_manifest_says_what_made_the_vectors(tmp_path: Path) -> None:
    teacher = watched_teacher(tmp_path)
    manifest = embed(tmp_path, model=teacher)
    assert read_manifest(tmp_path / "out") == manifest
    assert (manifest.rows, manifest.source) == (
        10,
        {"class": "TinyTuples", "fingerprint": TinyTuples().load()._fingerprint},
    )
    query = manifest.columns["query_teacher"]
    assert query.fingerprint == teacher.fingerprint
    assert query.weights == teacher.weights_identity
    assert (query.source_column, query.role, query.prompt) == ("query", "query", PROMPTS["query"])
    assert (query.pooling, query.dtype, query.precision, query.dim) == ("mean", "float32", "float16", TEACHER_DIM)
    assert manifest.columns["negatives_teacher"].prompt == PROMPTS["document"]
    assert [shard.rows for shard in manifest.shards] == [4, 4, 2]
    assert [path.name for path in manifest.verify(tmp_path / "out", hashes=True)] == [
        f"train-0000{shard}-of-00003.parquet" for shard in range(3)
    ]
    assert "10 rows in 3 files" in manifest.summary()
    left = {path.name for path in (tmp_path / "out").iterdir()} - {shard.file for shard in manifest.shards}
    assert left == {"embed.json", "manifest.json"}


# Each text once


def test_each_distinct_text_of_a_role_is_encoded_once(tmp_path: Path) -> None:
    teacher = watched_teacher(tmp_path)
    source = Rows(query=["a", "b", "a", "a"], document=["a", "c", "c", "b"], negatives=[["c"], [], ["b", "a"], []])
    embed(tmp_path, source=source, model=teacher, rows_per_shard=4)
    assert Counter(teacher.texts) == Counter(
        [("query", "a"), ("query", "b"), ("document", "a"), ("document", "b"), ("document", "c")]
    )


def test_texts_of_earlier_files_are_remembered_as_far_as_asked(tmp_path: Path) -> None:
    source = Rows(query=["a", "b", "a", "c", "b"], document=["d", "e", "f", "g", "h"])
    counts = {}
    for cached in (0, 1, 100):
        teacher = watched_teacher(tmp_path)
        settings = {"rows_per_shard": 1, "cached_texts": cached, "columns": {"query": "query"}}
        embed(tmp_path, f"cached{cached}", source=source, model=teacher, **settings)
        counts[cached] = len(teacher.texts)
        expected = vectors(read(tmp_path / "cached0"), "query_teacher")
        torch.testing.assert_close(vectors(read(tmp_path / f"cached{cached}"), "query_teacher"), expected)
    assert counts == {0: 5, 1: 5, 100: 3}


def test_long_texts_are_encoded_in_parts_and_come_back_in_their_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lightning_jv5.data.embed_columns._CHARACTERS_PER_CALL", 40)
    embed(tmp_path, "parts", precision="float32")
    monkeypatch.undo()
    monkeypatch.setenv("LIGHTNING_JV5_CACHE", str(tmp_path / "cache"))
    embed(tmp_path, "whole", precision="float32")
    for column in COLUMNS:
        parts, whole = (vectors(read(tmp_path / name), f"{column}_teacher") for name in ("parts", "whole"))
        torch.testing.assert_close(parts, whole)


# Training


def losses(tmp_path: Path, train: Source, **module: Any) -> Tensor:
    recorder = Recorder()
    trainer = quiet_trainer(tmp_path, max_steps=3, callbacks=[recorder])
    trainer.fit(tiny_module(tmp_path, optimizer=sgd, lr=None, **module), tiny_data(train=train, val={}))
    return torch.tensor(recorder.losses)


def test_training_from_columns_equals_training_with_the_online_teacher(tmp_path: Path) -> None:
    online = losses(tmp_path, TinyPairs(), teacher=tiny_teacher(tmp_path))
    embed(tmp_path, source=TinyPairs(), model=tiny_teacher(tmp_path))
    columns = losses(tmp_path, LocalFiles(str(tmp_path / "out")))
    torch.testing.assert_close(columns, online, atol=2e-4, rtol=0)
    assert len(online) == 3
    # the tolerance tells one teacher from another
    other = tiny_teacher(tmp_path)
    for weights in other.embedder.backbone.parameters():
        weights.add_(0.1)
    embed(tmp_path, "other", source=TinyPairs(), model=other)
    assert (losses(tmp_path, LocalFiles(str(tmp_path / "other"))) - online).abs().max() > 1e-2


# What is refused


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"precision": "int4"}, "Got precision 'int4'; need one of float32, float16, int8, binary"),
        ({"truncate_dim": 49}, "Got truncate_dim 49; the model's embeddings have 48. Give 1 to 48"),
        ({"truncate_dim": 0}, "Got truncate_dim 0"),
        ({"rows_per_shard": 0}, "Got rows_per_shard 0; need at least 1"),
        ({"cached_texts": -1}, "Got a capacity of -1 texts"),
        ({"suffix": ""}, "Got an empty suffix; the vectors need names"),
        ({"device": "gpu"}, "Got device 'gpu'; need one such as cpu, cuda or cuda:1"),
        ({"columns": {"qurey": "query"}}, "TinyTuples has the columns .*; none is 'qurey'. Did you mean 'query'"),
        ({"columns": {"query": "qurey"}}, "Got the role of 'query', 'qurey'; need one of query, document"),
        ({"columns": {"id": "query"}}, "column 'id' holds int64; need texts, or lists of texts"),
        ({"columns": {}}, "TinyTuples has the columns .*none is known to hold texts. Say which"),
        ({"suffix": "s", "source": Rows(query=["a"], document=["b"], querys=[1])}, "a column 'querys' already"),
        ({"source": Rows(query=[], document=[])}, "Rows has no rows to embed"),
        (
            {"source": Rows(query=["a"] * 5, document=["b", "c", None, "d", "e"])},
            "Row 2 .*column 'document' has no text",
        ),
        ({"source": Rows(text=["a"] * 5, negatives=[["b"]] * 4 + [["c", None]])}, "Row 4 .*'negatives' has no text"),
        ({"source": Rows(text=["a"] * 5, negatives=[["b"], None, [], [], []])}, "Row 1 .*'negatives' has no text"),
    ],
)
def test_wrong_settings_are_named(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        embed(tmp_path, **settings)


def test_a_machine_without_that_gpu_is_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"Got device cuda:99 on a machine with .* GPUs; need one of them"):
        embed(tmp_path, device="cuda:99")


def test_too_many_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lightning_jv5.data.embed_columns._MOST_SHARDS", 4)
    with pytest.raises(ValueError, match=r"rows_per_shard 2 for 10 rows, which makes more than 4 files. Raise it to 3"):
        embed(tmp_path, rows_per_shard=2)


def test_streams_are_refused(tmp_path: Path) -> None:
    class Stream(Source):
        def load(self) -> Any:
            return TinyTuples().load().to_iterable_dataset()

    with pytest.raises(ValueError, match="Stream is a streaming data set, whose rows have no numbers"):
        embed(tmp_path, source=Stream())


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_vector_that_is_not_finite_stops_the_run_and_keeps_the_finished_files(tmp_path: Path, precision: Any) -> None:
    model = watched_teacher(tmp_path)
    model.broken_at = TinyTuples().load()["document"][6]
    with pytest.raises(
        ValueError, match=rf"Row 6 .*column 'document': the vector of '{model.broken_at}' is not finite"
    ):
        embed(tmp_path, model=model, precision=precision)
    assert [path.name for path in (tmp_path / "out").glob("train*")] == ["train-00000-of-00003.parquet"]
    assert not list((tmp_path / "out").glob(".train-*"))


def test_a_negative_whose_vector_is_not_finite_is_named_with_its_row(tmp_path: Path) -> None:
    model = watched_teacher(tmp_path)
    model.broken_at = TinyTuples().load()["negatives"][8][1]
    with pytest.raises(ValueError, match=r"Row 8 .*column 'negatives'"):
        embed(tmp_path, model=model)


def test_a_folder_with_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("mine")
    with pytest.raises(ValueError, match=r"which holds thesis.tex; need an empty folder, or one that embed has begun"):
        embed(tmp_path)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ValueError, match="which is a file; need a folder"):
        embed(tmp_path, "file")


CHANGES: dict[str, tuple[Callable[[Path], dict[str, Any]], str]] = {
    "source": (lambda _: {"source": TinyTuples(9)}, r"rows \(was 10, is 9\); source.fingerprint"),
    "prompt": (
        lambda path: {"model": watched_teacher(path, prompts={"query": "q : "})},
        r"columns.query_teacher.prompt \(was 'query : ', is 'q : '\)",
    ),
    "length": (
        lambda path: {"model": watched_teacher(path, max_length=9)},
        r"columns.query_teacher.max_length \(was 64, is 9\)",
    ),
    "precision": (lambda _: {"precision": "int8"}, r"query_teacher.precision \(was 'float16', is 'int8'\)"),
    "dim": (lambda _: {"truncate_dim": 8}, r"columns.query_teacher.dim \(was 48, is 8\)"),
    "columns": (
        lambda _: {"columns": {"query": "query"}},
        r"columns.document_teacher.role \(was 'document', is None\)",
    ),
    "shards": (lambda _: {"rows_per_shard": 5}, r"rows_per_shard \(was 4, is 5\)"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_folder_begun_with_other_settings_is_refused_with_the_difference(tmp_path: Path, change: str) -> None:
    embed(tmp_path)
    settings, message = CHANGES[change]
    with pytest.raises(ValueError, match=rf"was begun with other settings: .*{message}.*name another folder"):
        embed(tmp_path, **settings(tmp_path))


def test_the_plan_is_written_before_the_first_file(tmp_path: Path) -> None:
    class Late(WatchedTeacher):
        def encode(self, *_: Any, **__: Any) -> Tensor:
            assert json.loads((tmp_path / "out" / "embed.json").read_text())["rows"] == 10
            raise KeyboardInterrupt

    like = watched_teacher(tmp_path)
    late = Late(
        config=like.settings.source,
        tokenizer=str(tmp_path / "tokenizer"),
        pooling="mean",  # type: ignore[arg-type]
    )
    with pytest.raises(KeyboardInterrupt):
        embed(tmp_path, model=late)
