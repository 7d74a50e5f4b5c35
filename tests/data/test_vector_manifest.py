import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lightning_jv5.data.embed_columns import embed_columns
from lightning_jv5.data.vector_manifest import VectorManifest, read_manifest, write_manifest
from lightning_jv5.models import Teacher
from tests.data.embed_runs import PROMPTS, TinyTuples, watched_teacher
from tests.tiny_models import tiny_config


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("written")
    embed_columns(TinyTuples(), watched_teacher(folder), str(folder / "out"), rows_per_shard=4)
    return folder / "out"


@pytest.fixture
def manifest(written: Path) -> VectorManifest:
    found = read_manifest(written)
    assert found is not None
    return found


# Teachers


def test_the_teacher_that_made_the_vectors_fits(tmp_path: Path, manifest: VectorManifest) -> None:
    for column in manifest.columns:
        manifest.check_teacher(watched_teacher(tmp_path), column)


def test_a_prompt_of_the_other_role_makes_no_difference(tmp_path: Path, manifest: VectorManifest) -> None:
    other = watched_teacher(tmp_path, prompts={**PROMPTS, "document": "passage : "})
    manifest.check_teacher(other, "query_teacher")
    with pytest.raises(ValueError, match=r"prompt \('document : ' of the vectors, 'passage : ' of the teacher\)"):
        manifest.check_teacher(other, "negatives_teacher")


def wider(folder: Path) -> Teacher:
    return watched_teacher(folder, config=tiny_config("eurobert", hidden_size=32, num_hidden_layers=1))


DIFFERENCES: dict[str, tuple[Callable[[Path], Teacher], str]] = {
    "instruction": (
        lambda folder: watched_teacher(folder, prompts=None, instruction="find it"),
        r"they differ in prompt \('query : ' of the vectors, 'Instruct: find it\\nQuery:' of the teacher\)\. Set the",
    ),
    "pooling": (
        lambda folder: watched_teacher(folder, pooling="cls"),
        r"they differ in pooling \('mean' of the vectors, 'cls' of the teacher\)\. Set",
    ),
    "max_length": (
        lambda folder: watched_teacher(folder, max_length=7),
        r"they differ in max_length \(64 of the vectors, 7 of the teacher\)\. Set",
    ),
    "dtype": (
        lambda folder: watched_teacher(folder, dtype="bfloat16"),
        r"dtype \('float32' of the vectors, 'bfloat16'",
    ),
    "weights": (
        lambda folder: watched_teacher(folder, config=tiny_config("eurobert", hidden_size=48, num_hidden_layers=2)),
        r"they differ in model weights \([0-9a-f]{12} of the vectors, [0-9a-f]{12} of the teacher\)\. Set",
    ),
    "dim": (wider, r"model weights .*; dim \(48 of the vectors, 32 of the teacher\)"),
}


@pytest.mark.parametrize("difference", DIFFERENCES)
def test_a_teacher_that_gives_other_vectors_is_refused_with_the_difference(
    tmp_path: Path, manifest: VectorManifest, difference: str
) -> None:
    teacher, message = DIFFERENCES[difference]
    with pytest.raises(ValueError, match=rf"column 'query_teacher' do not fit the teacher of the config.*{message}"):
        manifest.check_teacher(teacher(tmp_path), "query_teacher")


def test_another_tokenizer_is_a_difference(tmp_path: Path, manifest: VectorManifest) -> None:
    teacher = watched_teacher(tmp_path)
    teacher.tokenization.tokenizer.truncation_side = "left"
    with pytest.raises(ValueError, match=r"they differ in tokenizer \("):
        manifest.check_teacher(teacher, "query_teacher")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dim": 16}, r"they differ in dim \(16 of the vectors, cut from 48\)"),
        ({"precision": "binary"}, r"they differ in precision \(binary codes cannot be trained on\)"),
    ],
)
def test_vectors_that_were_made_for_a_search_are_not_trained_on(
    tmp_path: Path, manifest: VectorManifest, change: dict[str, Any], message: str
) -> None:
    cut = replace(manifest, columns={"query_teacher": replace(manifest.columns["query_teacher"], **change)})
    with pytest.raises(ValueError, match=message):
        cut.check_teacher(watched_teacher(tmp_path), "query_teacher")


def test_a_column_that_the_manifest_does_not_know_is_named(tmp_path: Path, manifest: VectorManifest) -> None:
    with pytest.raises(
        ValueError, match=r"no column 'qery_teacher', only of query_teacher.*Did you mean 'query_teacher'"
    ):
        manifest.check_teacher(watched_teacher(tmp_path), "qery_teacher")


# Files


@pytest.fixture
def copied(written: Path, tmp_path: Path) -> Path:
    for file in written.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


def test_whole_files_pass(copied: Path, manifest: VectorManifest) -> None:
    assert manifest.verify(copied, hashes=True) == sorted(copied.glob("*.parquet"))


def test_a_missing_file_is_named(copied: Path, manifest: VectorManifest) -> None:
    (copied / manifest.shards[1].file).unlink()
    with pytest.raises(ValueError, match=r"train-00001-of-00003.parquet is missing. Copy it again"):
        manifest.verify(copied)


def test_a_file_that_was_cut_off_is_named(copied: Path, manifest: VectorManifest) -> None:
    file = copied / manifest.shards[1].file
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"train-00001-of-00003.parquet has 100 bytes, need \d+. Copy it again"):
        manifest.verify(copied)


def test_a_changed_byte_is_found_when_asked_for(copied: Path, manifest: VectorManifest) -> None:
    file = copied / manifest.shards[2].file
    content = bytearray(file.read_bytes())
    content[20] ^= 1
    file.write_bytes(content)
    manifest.verify(copied)
    with pytest.raises(ValueError, match=r"train-00002-of-00003.parquet has another content than was written"):
        manifest.verify(copied, hashes=True)


def test_other_numbers_of_rows_are_found(copied: Path, manifest: VectorManifest) -> None:
    pq.write_table(pa.table({"a": [1]}), copied / manifest.shards[0].file)
    size = (copied / manifest.shards[0].file).stat().st_size
    first, *others = manifest.shards
    with pytest.raises(ValueError, match=r"train-00000-of-00003.parquet has 1 rows, need 4"):
        replace(manifest, shards=(replace(first, bytes=size), *others)).verify(copied)
    with pytest.raises(ValueError, match=r"The files of .* have 6 rows, need 10. Embed the rows again"):
        replace(manifest, shards=tuple(others)).verify(copied)


# Reading


def test_a_manifest_comes_back_as_it_was_written(tmp_path: Path, manifest: VectorManifest) -> None:
    write_manifest(manifest, tmp_path / "manifest.json")
    assert read_manifest(tmp_path) == manifest
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.json"]


@pytest.mark.parametrize("content", ["{}", "[1]", "no JSON", '{"kind": "web app", "format": 1}'])
def test_other_peoples_manifests_are_none_of_ours(tmp_path: Path, content: str) -> None:
    (tmp_path / "manifest.json").write_text(content)
    assert read_manifest(tmp_path) is None
    assert read_manifest(tmp_path / "nowhere") is None


def edited(folder: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads((folder / "manifest.json").read_text())
    edit(content)
    (folder / "manifest.json").write_text(json.dumps(content))


def test_an_unknown_format_is_refused(copied: Path) -> None:
    edited(copied, lambda content: content.update(format=2))
    with pytest.raises(ValueError, match=r"manifest.json has format 2; this version reads 1. Use the version"):
        read_manifest(copied)


def test_a_manifest_that_lacks_something_is_refused(copied: Path) -> None:
    edited(copied, lambda content: content["columns"]["query_teacher"].pop("prompt"))
    with pytest.raises(ValueError, match=r"manifest.json was changed: KeyError\('prompt'\). Restore it"):
        read_manifest(copied)


def test_a_folder_that_is_not_complete_says_what_to_do(copied: Path) -> None:
    (copied / "manifest.json").unlink()
    with pytest.raises(ValueError, match=r"are not complete: .*Run the same embed command again; it goes on where"):
        read_manifest(copied)
