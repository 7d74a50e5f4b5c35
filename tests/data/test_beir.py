import gzip
import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lightning_jv5.data import BeirFolder
from lightning_jv5.data.beir import read_corpus, read_qrels, read_queries
from tests.tiny_beir import CORPUS, HEADER, JUDGEMENTS, QUERIES, write_beir


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LIGHTNING_JV5_CACHE", str(tmp_path / "cache"))


def append(file: Path, line: str) -> None:
    file.write_text(file.read_text() + line + "\n")


def test_pairs_are_the_judgements_with_titles_before_texts(tmp_path: Path) -> None:
    rows = BeirFolder(write_beir(tmp_path / "beir")).load()
    assert rows.to_list() == [
        {"query": "red animals", "document": "Foxes the fox is red", "query_id": "q1", "document_id": "d1"},
        {"query": "red animals", "document": "a robin", "query_id": "q1", "document_id": "d3"},
        {"query": "blue things", "document": "The sky", "query_id": "q2", "document_id": "d2"},
    ]
    documents = BeirFolder(write_beir(tmp_path / "beir"), title=False).corpus()["text"][:]
    assert documents == [row["text"] for row in CORPUS]


@pytest.mark.parametrize("packed", [False, True])
def test_the_parts_are_read_in_their_order_packed_or_not(tmp_path: Path, packed: bool) -> None:
    folder = write_beir(tmp_path / "beir")
    if packed:
        for file in list(Path(folder).rglob("*.*")):
            (file.parent / f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes()))
            file.unlink()
    corpus, queries = read_corpus(folder), read_queries(folder)
    assert corpus["id"][:] == ["d1", "d2", "d3", "d4"]
    assert corpus["text"][3] == ""  # a document without text keeps its place
    assert queries.to_list() == [{"id": row["_id"], "text": row["text"]} for row in QUERIES]
    qrels = read_qrels(folder, "train")
    assert [tuple(row.values())[:3] for row in qrels] == JUDGEMENTS
    assert qrels["line"][:] == [2, 3, 4, 5]


def test_grades_below_the_lowest_are_no_answers_but_stay_relevant(tmp_path: Path) -> None:
    folder = write_beir(tmp_path / "beir")
    source = BeirFolder(folder, min_grade=2)
    assert source.load()["document_id"][:] == ["d3"]
    assert source.relevant()["document_id"][:] == ["d1", "d3", "d2"]
    assert BeirFolder(folder, min_grade=0).load()["document_id"][:] == ["d1", "d3", "d2", "d1"]
    assert BeirFolder(folder, rows=1).relevant()["document_id"][:] == ["d1", "d3", "d2"]
    with pytest.raises(ValueError, match=r"train\.tsv has no grade of 3 or more; the highest is 2\. Lower min_grade"):
        BeirFolder(folder, min_grade=3).load()
    with pytest.raises(ValueError, match=r"Got rows=4, but .*beir, split train has 3 rows"):
        BeirFolder(folder, rows=4).load()


def test_more_than_a_table_of_judgements_is_joined_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lightning_jv5.data.beir._ROWS_PER_TABLE", 4)
    monkeypatch.setattr("lightning_jv5.data.judgements._IDS_PER_LOOK_UP", 3)
    corpus = [{"_id": f"d{row}", "text": f"text {row}"} for row in range(11)]
    queries = [{"_id": f"q{row}", "text": f"query {row}"} for row in range(7)]
    judgements = [(f"q{row % 7}", f"d{row * 5 % 11}", 1) for row in range(30)]
    rows = BeirFolder(write_beir(tmp_path / "beir", corpus, queries, judgements)).load()
    assert [(row["query"], row["document"]) for row in rows] == [
        (f"query {query[1:]}", f"text {document[1:]}") for query, document, _ in judgements
    ]


def test_the_fingerprint_is_the_same_in_every_process_until_a_file_changes(tmp_path: Path) -> None:
    folder = write_beir(tmp_path / "beir")
    code = f"from lightning_jv5.data import BeirFolder; print(BeirFolder({folder!r}).load()._fingerprint)"
    prints = {
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
        for _ in range(2)
    }
    assert len(prints) == 1
    file = Path(folder) / "queries.jsonl"
    file.write_text(file.read_text().replace("red animals", "red beasts!"))  # of the same length
    os.utime(file, ns=(1, 1))
    changed = BeirFolder(folder).load()
    assert changed["query"][0] == "red beasts!"
    assert changed._fingerprint not in prints


def test_rows_are_memory_mapped(tmp_path: Path) -> None:
    folder = write_beir(tmp_path / "beir")
    for rows in (BeirFolder(folder).load(), read_corpus(folder)):
        assert [Path(file["filename"]).suffix for file in rows.cache_files] == [".arrow"]


# Bad input


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("corpus.jsonl", r"No file .*corpus\.jsonl.*Did you mean .*corpus_old\.jsonl"),
        ("queries.jsonl", r"No file .*queries\.jsonl"),
        ("qrels/train.tsv", r"No file .*train\.tsv.*It holds nothing"),
    ],
)
def test_a_missing_file_is_named_with_the_nearest(tmp_path: Path, missing: str, message: str) -> None:
    folder = write_beir(tmp_path / "beir")
    (Path(folder) / missing).unlink()
    (Path(folder) / "corpus_old.jsonl").touch()
    with pytest.raises(ValueError, match=message):
        BeirFolder(folder).load()


def test_a_missing_split_or_folder_is_named_with_the_nearest(tmp_path: Path) -> None:
    folder = write_beir(tmp_path / "beir")
    with pytest.raises(ValueError, match=r"No file .*trian\.tsv.*Did you mean .*train\.tsv"):
        BeirFolder(folder, split="trian").load()
    with pytest.raises(ValueError, match=r"has no 'bier'\. Did you mean .*beir"):
        BeirFolder(str(tmp_path / "bier")).load()


BROKEN = {
    "broken JSON": ("corpus.jsonl", '{"_id": "x", "text"', r"corpus\.jsonl, line 5: broken JSON, .*one JSON object"),
    "no object": ("corpus.jsonl", "[1]", r"line 5: a list instead of an object"),
    "misnamed key": ("corpus.jsonl", '{"id": "x", "text": "a"}', r"there is no _id, but id, text.* Did you mean 'id'"),
    "no text": ("queries.jsonl", '{"_id": "x"}', r"queries\.jsonl, line 4: there is no text, but _id"),
    "a number for a text": ("queries.jsonl", '{"_id": "x", "text": 5}', r"line 4: text is 5\. Need a string"),
    "an empty id": ("queries.jsonl", '{"_id": "", "text": "a"}', r"line 4: _id is ''\. Need a string with something"),
    "a document twice": ("corpus.jsonl", json.dumps(CORPUS[0]), r"line 5: _id 'd1' comes for the second time\. Remove"),
    "a query twice": ("queries.jsonl", json.dumps(QUERIES[0]), r"line 4: _id 'q1' comes for the second time"),
    "a judgement twice": ("qrels/train.tsv", "q1\td1\t2", r"line 6: the judgement of 'q1', 'd1' comes for the second"),
    "no such document": ("qrels/train.tsv", "q1\td33\t1", r"train\.tsv, line 6: judges document 'd33', which is not in "
                         r"corpus\.jsonl\. Correct the id .* Did you mean 'd3'"),
    "no such query": ("qrels/train.tsv", "q7\td1\t1", r"line 6: judges query 'q7', which is not in queries\.jsonl"),
    "no text to train on": ("qrels/train.tsv", "q1\td4\t1", r"line 6: judges document 'd4', which has no text"),
    "spaces for tabs": ("qrels/train.tsv", "q1 d2 1", r"line 6: 1 columns in 'q1 d2 1'\. Need query-id, corpus-id"),
    "no whole number": ("qrels/train.tsv", "q1\td2\t0.5", r"line 6: the score is '0\.5'\. Need a whole number"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_a_bad_line_is_an_error_or_skipped_and_counted(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    file, line, message = BROKEN[name]
    folder = write_beir(tmp_path / "beir")
    whole = BeirFolder(folder).load().to_list()
    append(Path(folder) / file, line)
    with pytest.raises(ValueError, match=message):
        BeirFolder(folder).load()
    with caplog.at_level(logging.WARNING):
        assert BeirFolder(folder, on_bad_row="skip", max_bad_share=0.5).load().to_list() == whole
    assert "skipped 1 of" in caplog.text
    with pytest.raises(ValueError, match=r"cannot be used; max_bad_share allows 1\.00%"):
        BeirFolder(folder, on_bad_row="skip").load()


def test_a_judgement_that_is_wrong_twice_counts_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = write_beir(tmp_path / "beir")
    append(Path(folder) / "qrels" / "train.tsv", "q7\td33\t1")
    with caplog.at_level(logging.WARNING):
        BeirFolder(folder, on_bad_row="skip", max_bad_share=0.5).load()
    assert "skipped 1 of 4 rows" in caplog.text


def test_wrong_settings_are_refused_at_once() -> None:
    with pytest.raises(ValueError, match="Got on_bad_row 'drop'"):
        BeirFolder("nowhere", on_bad_row="drop")  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["q1\td1\t1\n", "query-id\tcorpus-id\n", "query-id corpus-id score\n"])
def test_a_missing_header_is_refused(tmp_path: Path, text: str) -> None:
    folder = write_beir(tmp_path / "beir")
    (Path(folder) / "qrels" / "train.tsv").write_text(text)
    with pytest.raises(ValueError, match=r"train\.tsv, line 1: got .*; need the header 'query-id corpus-id score'"):
        read_qrels(folder, "train")


def test_columns_of_the_judgements_may_stand_in_another_order(tmp_path: Path) -> None:
    folder = write_beir(tmp_path / "beir")
    (Path(folder) / "qrels" / "train.tsv").write_text("score\tcorpus-id\tquery-id\n2\td1\tq1\n")
    row = read_qrels(folder, "train")[0]
    assert (row["query_id"], row["document_id"], row["grade"]) == ("q1", "d1", 2)


@pytest.mark.parametrize("text", ["", HEADER, "\n\n"])
def test_empty_files_are_refused(tmp_path: Path, text: str) -> None:
    folder = write_beir(tmp_path / "beir")
    (Path(folder) / "qrels" / "train.tsv").write_text(text)
    with pytest.raises(ValueError, match=r"train\.tsv holds no rows; need at least one"):
        BeirFolder(folder).load()


def test_a_cut_off_gzip_file_is_refused(tmp_path: Path) -> None:
    folder = write_beir(tmp_path / "beir")
    file = Path(folder) / "corpus.jsonl"
    (Path(folder) / "corpus.jsonl.gz").write_bytes(gzip.compress(file.read_bytes())[:-20])
    file.unlink()
    with pytest.raises(ValueError, match=r"corpus\.jsonl\.gz is no whole gzip file: .*Copy it again"):
        read_corpus(folder)
    assert not list((tmp_path / "cache").rglob("*arrow*"))
