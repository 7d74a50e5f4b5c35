import gzip
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import datasets
import pytest

from lightning_jv5.data import files
from lightning_jv5.data.files import LocalFiles

ROWS = [{"question": f"why {number}?", "answer": f"because {number}"} for number in range(5)]
COLUMNS = {"query": "question", "document": "answer"}


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LIGHTNING_JV5_CACHE", str(tmp_path / "cache"))


def write_lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    text = "".join(json.dumps(row) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def write(path: Path) -> Path:
    dataset = datasets.Dataset.from_list(ROWS)
    if path.name.startswith("saved"):
        dataset.save_to_disk(path)
    elif ".json" in path.name:
        write_lines(path, ROWS)
    elif path.suffix == ".parquet":
        dataset.to_parquet(path)
    elif path.suffix == ".arrow":
        with datasets.arrow_writer.ArrowWriter(path=str(path)) as writer:
            writer.write_table(dataset.data.table)
            writer.finalize()
    else:
        text = dataset.to_pandas().to_csv(index=False)
        path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


@pytest.mark.parametrize(
    "name", ["a.jsonl", "a.json", "a.jsonl.gz", "a.csv", "a.csv.gz", "a.parquet", "a.arrow", "saved_folder"]
)
def test_every_format_gives_the_same_rows(tmp_path: Path, name: str) -> None:
    loaded = LocalFiles(str(write(tmp_path / name)), columns=COLUMNS, rows=3).load()
    assert loaded.to_list() == [{"query": row["question"], "document": row["answer"]} for row in ROWS[:3]]


def test_globs_folders_and_lists_are_read_in_order(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    first, second = (write_lines(tmp_path / "in" / f"{name}.jsonl", [{"text": name}]) for name in "ab")
    for paths in (str(tmp_path / "in" / "*.jsonl"), str(tmp_path / "in"), [str(first), str(second)]):
        assert LocalFiles(paths).load()["text"][:] == ["a", "b"]
    assert LocalFiles([str(second), str(first)]).load()["text"][:] == ["b", "a"]


def test_a_format_can_be_named_where_the_suffix_does_not_tell(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.txt", [{"text": "hello"}])
    assert LocalFiles(str(path), format="jsonl").load()["text"][:] == ["hello"]
    with pytest.raises(ValueError, match=r"Cannot tell the format of .*a\.txt.*format=jsonl"):
        LocalFiles(str(path)).load()
    with pytest.raises(ValueError, match="Got format='xml'; need one of arrow, csv"):
        LocalFiles(str(path), format="xml")  # type: ignore[arg-type]


def test_a_missing_file_names_the_nearest(tmp_path: Path) -> None:
    write_lines(tmp_path / "train.jsonl", [{"text": "a"}])
    with pytest.raises(ValueError, match=r"No file .*trian\.jsonl.*Did you mean .*train\.jsonl"):
        LocalFiles(str(tmp_path / "trian.jsonl")).load()
    with pytest.raises(ValueError, match="there is no folder"):
        LocalFiles(str(tmp_path / "nowhere" / "train.jsonl")).load()


def test_broken_json_is_reported_with_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "broken.jsonl"
    path.write_text('{"text": "a"}\n\n{"text": "b"\n')
    with pytest.raises(ValueError, match=r"broken\.jsonl:3: broken JSON, .*in '{\"text\": \"b\"'"):
        LocalFiles(str(path)).load()


def test_formats_are_not_mixed(tmp_path: Path) -> None:
    paths = [str(write(tmp_path / "a.jsonl")), str(write(tmp_path / "a.csv"))]
    with pytest.raises(ValueError, match=r"several formats: .*a\.jsonl \(jsonl\), .*a\.csv \(csv\)"):
        LocalFiles(paths).load()


def test_files_whose_columns_differ_are_refused(tmp_path: Path) -> None:
    first = write_lines(tmp_path / "a.jsonl", [{"text": "a"}])
    second = write_lines(tmp_path / "b.jsonl", [{"query": "a", "document": "b"}])
    with pytest.raises(ValueError, match=r"(?s)Cannot read .*same columns"):
        LocalFiles([str(first), str(second)]).load()


def test_an_empty_text_names_file_and_row(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", [{"text": "a"}, {"text": ""}])
    with pytest.raises(ValueError, match=r"a\.jsonl, row 1 .*holds ''"):
        LocalFiles(str(path)).load()


def test_a_changed_file_is_read_again_and_an_unchanged_one_keeps_its_fingerprint(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", [{"text": "a"}])
    code = f"from lightning_jv5.data import files; print(files.LocalFiles({str(path)!r}).load()._fingerprint)"
    prints = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    ]
    assert prints[0] == prints[1]
    write_lines(path, [{"text": "b"}])
    os.utime(path, ns=(1, 1))
    changed = LocalFiles(str(path)).load()
    assert changed["text"][:] == ["b"]
    assert changed._fingerprint != prints[0].strip()


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.csv", "a.csv.gz", "a.parquet", "a.arrow", "saved_folder"])
def test_every_format_can_be_streamed(tmp_path: Path, name: str) -> None:
    source = LocalFiles(str(write(tmp_path / name)), columns=COLUMNS, filter="query != 'why 1?'", rows=3)
    tables = list(source.stream().iter(batch_size=2))
    assert [row for table in tables for row in table.to_pylist()] == source.load().to_list()
    assert [len(table) for table in tables] == [2, 1]


def test_a_bad_row_of_several_files_names_the_file(tmp_path: Path) -> None:
    write_lines(tmp_path / "a.jsonl", [{"text": "a"}, {"text": "b"}])
    write_lines(tmp_path / "b.jsonl", [{"text": "c"}, {"text": ""}])
    with pytest.raises(ValueError, match=r"\*\.jsonl, b\.jsonl, row 1 \(the first is 0\): column 'text' holds ''"):
        LocalFiles(str(tmp_path / "*.jsonl")).load()


def test_a_broken_line_and_an_empty_text_in_two_files_are_both_skipped(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "a"}\n{"text": "b"\n')
    write_lines(tmp_path / "b.jsonl", [{"text": ""}, {"text": "c"}])
    source = LocalFiles(str(tmp_path / "*.jsonl"), on_bad_row="skip", max_bad_share=0.5)
    assert source.load()["text"][:] == ["a", "c"]
    assert "a.jsonl:2: broken JSON" in caplog.text
    assert "b.jsonl, row 0 (the first is 0)" in caplog.text


def test_a_number_among_texts_names_its_row_or_is_skipped(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", [{"text": "a"}, {"text": 5}, {"text": 'b " c'}])
    with pytest.raises(ValueError, match=r"row 1 .*'text' holds .*5.*, which is no text"):
        LocalFiles(str(path)).load()
    rows = LocalFiles(str(path), on_bad_row="skip", max_bad_share=0.5).load()
    assert rows["text"][:] == ["a", 'b " c']


def test_broken_lines_can_be_skipped(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "broken.jsonl"
    path.write_text('{"text": "a"}\n{"text": "b"\n[1]\n{"text": "c"}')
    source = LocalFiles(str(path), on_bad_row="skip", max_bad_share=0.5)
    assert source.load()["text"][:] == ["a", "c"]
    assert source.load()._fingerprint == source.load()._fingerprint
    assert caplog.text.count("skipped 2 of 4 rows (50.00%)") == 1
    caplog.clear()
    again = LocalFiles(str(path), on_bad_row="skip", max_bad_share=0.5)
    with monkeypatch.context() as patched:
        patched.setattr(files, "_whole_lines", None)  # not looked at again
        assert again.load()["text"][:] == ["a", "c"]
    assert "skipped 2 of 4 rows (50.00%). The first: " in caplog.text
    assert "broken.jsonl:2: broken JSON" in caplog.text
    assert [table["text"].to_pylist() for table in source.stream().iter(batch_size=5)] == [["a", "c"]]
    with pytest.raises(ValueError, match=r"broken\.jsonl:2: broken JSON"):  # what was mended for another is not used
        LocalFiles(str(path), max_bad_share=0.5).load()
    with pytest.raises(ValueError, match=r"2 of 4 rows \(50.00%\) cannot be used; max_bad_share allows 1.00%"):
        LocalFiles(str(path), on_bad_row="skip").load()
