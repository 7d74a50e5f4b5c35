import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import datasets
import pytest

from lightning_jv5.data.hub_retrieval import HubTables
from tests.tiny_hub import CORPUS, QRELS, QUERIES, TABLES, Tables, added, changed, renamed, write_hub


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LIGHTNING_JV5_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hub")


def read(tables: HubTables, group: str | None = None) -> list[list[dict[str, Any]]]:
    return [rows.to_list() for rows in (tables.corpus(), tables.queries(group=group), tables.qrels())]


def test_tables_have_the_columns_of_those_of_a_folder_of_beir(tmp_path: Path) -> None:
    tables = HubTables(write_hub(tmp_path / "hub", TABLES))
    corpus, queries, qrels = read(tables, group="lang")
    assert corpus[0] == {"id": "d1", "text": "the house the cat is red"}
    assert corpus[3] == {"id": "d4", "text": ""}
    assert queries == [
        {"id": name, "text": text, "group": lang}
        for name, text, lang in zip(*(QUERIES[name] for name in ("_id", "text", "lang")), strict=True)
    ]
    assert qrels[1] == {"query_id": "q1", "document_id": "d3", "grade": 2, "line": 1}
    assert "group" not in tables.queries().column_names


def test_what_is_read_is_memory_mapped_and_has_the_same_fingerprint_again(tmp_path: Path) -> None:
    tables = HubTables(write_hub(tmp_path / "hub", TABLES))
    prints = set()
    for _ in range(2):
        for rows in (tables.corpus(), tables.queries(), tables.qrels(), tables.corpus(title=False)):
            assert [Path(file["filename"]).suffix for file in rows.cache_files] == [".arrow"]
            prints.add(rows._fingerprint)
    assert len(prints) == 4


def test_more_than_a_read_of_rows_keep_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lightning_jv5.data.hub_retrieval._ROWS_PER_READ", 3)
    corpus = {"id": list(range(10)), "text": [f"text {row}" for row in range(10)]}
    rows = HubTables(write_hub(tmp_path / "hub", changed("corpus", "corpus", corpus))).corpus()
    assert [(row["id"], row["text"]) for row in rows] == [(f"{row}", f"text {row}") for row in range(10)]
    twice = changed("corpus", "corpus", corpus | {"id": [*range(9), 0]})
    with pytest.raises(ValueError, match=r"row 9 \(the first is 0\): _id '0' comes for the second time"):
        HubTables(write_hub(tmp_path / "twice", twice)).corpus()


# Bad input


BAD_ROWS: dict[str, tuple[Tables, str]] = {
    "a document twice": (
        changed("corpus", "corpus", added(CORPUS, "d1", "", "again")),
        r"corpus, corpus, row 4 \(the first is 0\): _id 'd1' comes for the second time",
    ),
    "an empty id": (
        changed("corpus", "corpus", added(CORPUS, "", "", "again")),
        r"row 4 \(the first is 0\): _id is ''\. Need a string with something in it, or a whole number",
    ),
    "a query without an id": (
        changed("queries", "queries", added(QUERIES, None, "text", "en")),
        r"queries, queries, row 3 \(the first is 0\): _id is None",
    ),
    "a judgement twice": (
        changed("default", "test", added(QRELS, "q1", "d1", 2)),
        r"default, test, row 4 \(the first is 0\): the judgement of 'q1', 'd1' comes for the second time",
    ),
    "no whole grade": (
        changed("default", "test", added(QRELS, "q1", "d2", 0.5)),
        r"default, test, row 4 \(the first is 0\): the score is 0\.5\. Need a whole number",
    ),
    "no grade": (
        changed("default", "test", added(QRELS, "q1", "d2", None)),
        r"default, test, row 4 \(the first is 0\): the score is None\. Need a whole number",
    ),
}


@pytest.mark.parametrize("name", BAD_ROWS)
def test_a_bad_row_is_an_error_or_skipped_and_counted(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    tables, message = BAD_ROWS[name]
    path = write_hub(tmp_path / "hub", tables)
    with pytest.raises(ValueError, match=message):
        read(HubTables(path))
    with caplog.at_level(logging.WARNING):
        found = read(HubTables(path, on_bad_row="skip", max_bad_share=0.5))
    assert found == read(HubTables(write_hub(tmp_path / "whole", TABLES)))
    assert "skipped 1 of" in caplog.text
    with pytest.raises(ValueError, match=r"cannot be used; max_bad_share allows 1\.00%"):
        read(HubTables(path, on_bad_row="skip"))


@pytest.mark.parametrize(
    ("tables", "settings", "message"),
    [
        (TABLES, {"split": "tset"}, r"hub, default has no split 'tset'; it has test, dev\. .*Did you mean 'test'"),
        (TABLES, {"name": "de"}, r"Cannot load .*hub' \(name='de-corpus'.*corpus"),
        (TABLES, {"group": "language"}, r"has the columns _id, text, lang; need 'language'"),
        ({name: TABLES[name] for name in ("corpus", "queries")}, {}, r"Cannot load .*\(name='qrels'"),
        (changed("corpus", "corpus", renamed(CORPUS, _id="docid")), {}, r"columns docid, title, text; need '_id'"),
        (changed("corpus", "corpus", renamed(CORPUS, text="body")), {}, r"columns _id, title, body; need 'text'"),
        (
            changed("default", "test", renamed(QRELS, score="grade")),
            {},
            r"default, test has the columns query-id, corpus-id, grade; need 'score'",
        ),
        (TABLES | {"corpus": {"a": CORPUS, "b": CORPUS}}, {}, r"hub, corpus has no split 'test'; it has a, b"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path: Path, tables: Tables, settings: Mapping[str, Any], message: str) -> None:
    hub = HubTables(
        write_hub(tmp_path / "hub", tables), **{name: settings[name] for name in settings if name != "group"}
    )
    with pytest.raises(ValueError, match=message):
        read(hub, settings.get("group"))
