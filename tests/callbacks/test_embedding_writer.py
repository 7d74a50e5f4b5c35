from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from lightning_jv5.callbacks import EmbeddingWriter, embedding_writer, read_embeddings
from tests.callbacks.tiny_run import STUDENT_DIM, TinyCorpus, tiny_datamodule, tiny_module, tiny_trainer


def predict(folder: Path, writer: EmbeddingWriter, **changes: int) -> torch.Tensor:
    module = tiny_module(folder, teacher=False)
    assert tiny_trainer(folder, [writer], **changes).predict(module, datamodule=tiny_datamodule()) is None
    return module.encode(TinyCorpus().load()["text"][:])


@pytest.mark.parametrize(("dtype", "group"), [("float32", 4096), ("float32", 3), ("float16", 4)])
def test_what_is_read_is_what_predict_encoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str, group: int
) -> None:
    monkeypatch.setattr(embedding_writer, "_ROWS_PER_GROUP", group)
    expected = predict(tmp_path, EmbeddingWriter(str(tmp_path / "out"), dtype=dtype, rows_per_file=5))  # type: ignore[arg-type]
    embeddings = read_embeddings(tmp_path / "out")
    assert embeddings.dtype == getattr(torch, dtype)
    torch.testing.assert_close(embeddings, expected.to(embeddings.dtype))
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == [*(f"embeddings-0-{shard}.parquet" for shard in range(4)), "embeddings.json"]
    table = pq.read_table(tmp_path / "out" / "embeddings-0-0.parquet")
    assert table.schema.field("row").type == pa.int64()
    assert table.schema.field("embedding").type.list_size == STUDENT_DIM
    assert len(table) == 5


def test_a_folder_that_holds_something_is_refused_unless_overwritten(tmp_path: Path) -> None:
    out = tmp_path / "out"
    predict(tmp_path, EmbeddingWriter(str(out), rows_per_file=2))
    with pytest.raises(ValueError, match=r"which holds embeddings-0-0.parquet; need an empty one.* overwrite=True"):
        predict(tmp_path, EmbeddingWriter(str(out)))
    expected = predict(tmp_path, EmbeddingWriter(str(out), overwrite=True))
    torch.testing.assert_close(read_embeddings(out), expected)
    assert len(list(out.glob("*.parquet"))) == 1


def test_missing_and_doubled_rows_are_found(tmp_path: Path) -> None:
    out = tmp_path / "out"
    predict(tmp_path, EmbeddingWriter(str(out), rows_per_file=6))
    (out / "embeddings-0-1.parquet").write_bytes((out / "embeddings-0-0.parquet").read_bytes())
    message = r"Got 6 missing rows \[6, 7, 8, 9, 10\], 6 doubled ones \[0, 1, 2, 3, 4\] and 0 beyond"
    with pytest.raises(ValueError, match=message):
        read_embeddings(out)


def test_an_unfinished_folder_is_refused_and_leaves_no_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding_writer, "_ROWS_PER_GROUP", 1)
    out = tmp_path / "out"
    writer = EmbeddingWriter(str(out), rows_per_file=5)
    write = writer.write_on_batch_end

    def fail_at_the_fifth(*args: object) -> None:
        if args[5] == 4:
            raise RuntimeError("the disk is full")
        write(*args)  # type: ignore[arg-type]

    writer.write_on_batch_end = fail_at_the_fifth  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="the disk is full"):
        predict(tmp_path, writer)
    assert [path.name for path in out.iterdir()] == ["embeddings-0-0.parquet"]
    with pytest.raises(ValueError, match=r"without embeddings.json; need one that predict has finished"):
        read_embeddings(out)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"dtype": "int8"}, "Got dtype 'int8'; need"), ({"rows_per_file": 0}, "Got rows_per_file 0; need at least 1")],
)
def test_wrong_arguments_are_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EmbeddingWriter("out", **arguments)  # type: ignore[arg-type]
