import json
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from datasets import Dataset
from torch import Tensor

from lightning_jv5.data import BeirFolder, LocalFiles, candidates, mined_rows, teacher_vectors
from lightning_jv5.data.cache import fingerprint
from lightning_jv5.data.hard_negatives import NegativeRules
from lightning_jv5.data.mining import mine_hard_negatives
from lightning_jv5.data.source import Source
from tests.process_runs import in_process
from tests.tiny_beir import write_beir

WORDS = ["ant", "bee", "cat", "dog", "eel", "fox", "gnu", "hen", "ibis", "jay"]


class WordCounter:
    """Embeds a text as how often it has each word, so that similarities are exact and often tie."""

    dim = len(WORDS)

    def __init__(self, weight: float = 1.0, killed_after: int | None = None) -> None:
        self.weight, self.killed_after = weight, killed_after
        self.texts: list[str] = []

    @property
    def fingerprint(self) -> str:
        return f"words {self.weight}"

    def encode(self, texts: Sequence[str], role: str) -> Tensor:
        self.texts.extend(texts)
        if self.killed_after is not None and len(self.texts) > self.killed_after:
            os.kill(os.getpid(), signal.SIGKILL)
        weights = torch.tensor([1.0] * 5 + [self.weight] * 5)
        counts = [[text.lower().split().count(word) for word in WORDS] for text in texts]
        return torch.tensor(counts) * weights / (2 if role == "query" else 4)


class Rows(Source):
    """Rows as they are given."""

    def __init__(self, rows: dict[str, list[Any]]) -> None:
        self.rows = rows

    def load(self) -> Dataset:
        made = Dataset.from_dict(self.rows)
        made._fingerprint = fingerprint("rows", self.rows)
        return made


def sentences(count: int, seed: int, length: int = 4) -> list[str]:
    drawn = np.random.default_rng(seed).integers(0, len(WORDS), (count, length))
    return [" ".join(WORDS[word] for word in row) for row in drawn]


def some_pairs(count: int = 40) -> Rows:
    """Pairs of which some share a query, some a document, and some documents are queries of others."""
    queries = sentences(count // 2, seed=0) * 2
    documents = [f"{query} {extra}" for query, extra in zip(queries, sentences(count, seed=1, length=2), strict=True)]
    documents[3] = documents[9].upper()
    documents[5] = queries[1]
    return Rows({"query": queries, "document": documents, "id": list(range(count))})


SOME_CORPUS = Rows({"text": [*sentences(30, seed=2, length=6), "Ant  bee", "ant bee"]})


@pytest.fixture(autouse=True)
def _own_cache_and_small_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIGHTNING_JV5_CACHE", str(tmp_path / "cache"))
    use_small_parts(monkeypatch.setattr)


def use_small_parts(set_attribute: Any) -> None:
    for module, name, size in (
        (teacher_vectors, "_ROWS_PER_SHARD", 8),
        (teacher_vectors, "_TEXTS_PER_CALL", 4),
        (candidates, "_DOCUMENTS_PER_TILE", 7),
        (candidates, "_QUERIES_PER_PASS", 6),
        (candidates, "_PAIRS_AT_ONCE", 50),
        (candidates, "_ROWS_PER_TABLE", 5),
        (mined_rows, "_ROWS_PER_TABLE", 9),
    ):
        set_attribute(module, name, size)


def read(folder: Path) -> list[dict[str, Any]]:
    return pq.read_table(folder / "pairs.parquet").to_pylist()


def plain(text: str) -> str:
    return " ".join(text.split()).lower()


def slow_mining(
    pairs: Rows, corpus: list[str], rules: NegativeRules, judge: WordCounter | None = None
) -> list[list[str]]:
    """The negatives of each row by brute force: every query with every document, in Python."""
    model = WordCounter()

    def similarity(by: WordCounter, query: str, document: str) -> float:
        return float(by.encode([query], "query")[0].double() @ by.encode([document], "document")[0].double())

    rows = list(zip(pairs.rows["query"], pairs.rows["document"], strict=True))
    documents = list({plain(text): text for text in reversed([*corpus, *pairs.rows["document"]]) if text}.values())[
        ::-1
    ]
    order = {plain(text): place for place, text in enumerate([*corpus, *pairs.rows["document"]][::-1])}
    documents.sort(key=lambda text: -order[plain(text)])
    negatives = []
    for query, document in rows:
        answers = {plain(other) for same, other in rows if plain(same) == plain(query)}
        allowed = [text for text in documents if plain(text) not in answers and plain(text) != plain(query)]
        found = sorted(allowed, key=lambda text: -similarity(model, query, text))[: rules.depth]
        by = judge or model
        of_answers = [similarity(by, query, other) for same, other in rows if plain(same) == plain(query)]
        positive = min(of_answers) if rules.margin_from == "lowest" else similarity(by, query, document)
        kept = []
        for text in found[rules.skip_top :]:
            value = similarity(by, query, text)
            near = rules.relative_margin is not None and value > positive - rules.relative_margin * abs(positive)
            if rules.absolute_margin is not None:
                near |= value > positive - rules.absolute_margin
            if not near:
                kept.append(text)
        negatives.append(kept[: rules.negatives])
    return negatives


RULES = {
    "without margins": {"relative_margin": None},
    "relative": {"relative_margin": 0.25},
    "absolute": {"relative_margin": None, "absolute_margin": 0.5},
    "own": {"relative_margin": 0.25, "margin_from": "own"},
    "skip": {"relative_margin": None, "skip_top": 3},
    "deep": {"relative_margin": 0.5, "depth": 100},
}


@pytest.mark.parametrize("judge", [None, WordCounter(weight=4.0)], ids=["no judge", "judge"])
@pytest.mark.parametrize("name", RULES)
def test_negatives_are_those_of_brute_force(tmp_path: Path, name: str, judge: WordCounter | None) -> None:
    rules = NegativeRules(**{"negatives": 3, "depth": 8, **RULES[name]})  # type: ignore[arg-type]
    pairs = some_pairs()
    summary = mine_hard_negatives(pairs, WordCounter(), tmp_path / "out", rules=rules, corpus=SOME_CORPUS, judge=judge,
                                  layout="list", rows_without="keep")  # fmt: skip
    expected = slow_mining(pairs, SOME_CORPUS.rows["text"], rules, judge)
    mined = read(tmp_path / "out")
    assert [row["negatives"] for row in mined] == expected
    assert [[row["query"], row["document"], row["id"]] for row in mined] == list(
        map(list, zip(*pairs.rows.values(), strict=True))
    )
    counts = [len(negatives) for negatives in expected]
    assert (summary.rows, summary.negatives) == (40, sum(counts))
    assert (summary.rows_with_fewer, summary.rows_without) == (sum(n < 3 for n in counts), counts.count(0))


EASY = NegativeRules(negatives=3, depth=8, relative_margin=None)


def test_what_was_dropped_is_counted(tmp_path: Path) -> None:
    pairs = Rows({"query": ["ant bee", "ant bee", "cat"], "document": ["ant", "bee ant bee", "cat cat"]})
    corpus = Rows({"text": ["Ant  Bee", "ant ant bee", "ant dog", "dog", "eel", "cat cat cat"]})
    rules = NegativeRules(negatives=2, depth=4, skip_top=1, relative_margin=None, absolute_margin=0.0)
    summary = mine_hard_negatives(pairs, WordCounter(), tmp_path / "out", rules=rules, corpus=corpus)
    # By similarity (times 8), in the corpus's order where they tie:
    # ant bee: its answers, bee ant bee 3 and ant 1; itself 2; then ant ant bee 3, ant dog 1, dog 0, eel 0
    # cat: its answer, cat cat 2; then cat cat cat 3, Ant Bee 0, ant ant bee 0, ant dog 0
    assert (summary.rows, summary.queries, summary.documents) == (3, 2, 9)
    assert summary.dropped_answers == 2 + 2 + 1
    assert summary.dropped_same_text == 1 + 1
    assert summary.candidates == 3 * 4 + 5 + 2
    assert summary.dropped_top == 3
    assert summary.dropped_by_margin == 0
    assert (summary.negatives, summary.rows_with_fewer, summary.rows_without, summary.rows_written) == (6, 0, 0, 3)
    assert summary.mean_positive == pytest.approx((1 + 3 + 2) / 8 / 3)
    assert summary.mean_negative == pytest.approx((1 + 0 + 1 + 0 + 0 + 0) / 8 / 6)
    assert [(row["negative"], row["negative_2"]) for row in read(tmp_path / "out")] == [
        ("ant dog", "dog"),
        ("ant dog", "dog"),
        ("Ant  Bee", "ant ant bee"),
    ]
    assert [line.split()[-1] for line in summary.summary().splitlines()][:4] == ["3", "2", "9", "19"]


def test_the_output_says_how_it_was_made(tmp_path: Path) -> None:
    judge = WordCounter(weight=2.0)
    summary = mine_hard_negatives(some_pairs(), WordCounter(), tmp_path / "out", rules=EASY, judge=judge)
    told = json.loads((tmp_path / "out" / "mining.json").read_text())
    assert told["summary"]["negatives"] == summary.negatives
    assert told["settings"]["model"]["fingerprint"] == "words 1.0"
    assert told["settings"]["judge"]["fingerprint"] == "words 2.0"
    assert told["settings"]["pairs"]["init_args"]["rows"] == some_pairs().rows
    assert told["settings"]["depth"] == 8
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["mining.json", "pairs.parquet"]


@pytest.mark.parametrize("layout", ["columns", "list"])
def test_layouts_hold_the_same_and_can_be_trained_on(tmp_path: Path, layout: Any) -> None:
    rules = NegativeRules(negatives=3, depth=8, relative_margin=0.25, margin_from="own")
    mine_hard_negatives(some_pairs(), WordCounter(), tmp_path / "out", rules=rules, layout=layout, scores=True,
                        corpus=SOME_CORPUS)  # fmt: skip
    expected = [row for row in slow_mining(some_pairs(), SOME_CORPUS.rows["text"], rules) if row]
    assert {len(row) for row in expected} == {1, 2, 3}
    loaded = LocalFiles(str(tmp_path / "out" / "*.parquet")).load().to_list()
    names = ["negative", "negative_2", "negative_3"]
    for row, negatives in zip(loaded, expected, strict=True):
        held = row["negatives"] if layout == "list" else [row[name] for name in names if row[name] is not None]
        assert held == negatives
        model = WordCounter()
        similarities = model.encode([row["query"]], "query") @ model.encode(held, "document").T
        assert row["negative_scores"] == similarities[0].tolist()
    schema = pq.read_schema(tmp_path / "out" / "pairs.parquet")
    assert str(schema.field("negative_scores").type) == "list<element: float>"


def test_scores_are_the_judges_where_there_is_one(tmp_path: Path) -> None:
    judge = WordCounter(weight=4.0)
    mine_hard_negatives(some_pairs(), WordCounter(), tmp_path / "out", rules=EASY, judge=judge, scores=True)
    for row in read(tmp_path / "out"):
        negatives = [row[name] for name in ("negative", "negative_2", "negative_3") if row[name]]
        scores = judge.encode([row["query"]], "query") @ judge.encode(negatives, "document").T
        assert row["negative_scores"] == scores[0].tolist()


def test_rows_without_negatives_are_dropped_unless_they_are_kept(tmp_path: Path) -> None:
    pairs = Rows({"query": ["ant", "bee"], "document": ["ant bee", "bee cat"]})
    rules = NegativeRules(negatives=1, depth=2, relative_margin=None, absolute_margin=0.1)
    dropped = mine_hard_negatives(pairs, WordCounter(), tmp_path / "dropped", rules=rules)
    kept = mine_hard_negatives(pairs, WordCounter(), tmp_path / "kept", rules=rules, rows_without="keep")
    assert [(row["query"], row["negative"]) for row in read(tmp_path / "dropped")] == [("ant", "bee cat")]
    assert [(row["query"], row["negative"]) for row in read(tmp_path / "kept")] == [("ant", "bee cat"), ("bee", None)]
    assert (dropped.rows_without, dropped.rows_written, kept.rows_without, kept.rows_written) == (1, 1, 1, 2)


def test_the_same_input_gives_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rules = NegativeRules(negatives=3, depth=8, relative_margin=None, sampling="random", seed=3)
    files = []
    for name in ("first", "second"):
        monkeypatch.setenv("LIGHTNING_JV5_CACHE", str(tmp_path / f"cache of {name}"))
        mine_hard_negatives(some_pairs(), WordCounter(), tmp_path / name, rules=rules, corpus=SOME_CORPUS)
        files.append((tmp_path / name / "pairs.parquet").read_bytes())
    assert files[0] == files[1]
    other = NegativeRules(negatives=3, depth=8, relative_margin=None, sampling="random", seed=4)
    mine_hard_negatives(some_pairs(), WordCounter(), tmp_path / "other", rules=other, corpus=SOME_CORPUS)
    assert read(tmp_path / "other") != read(tmp_path / "first")


def mining_that_is_killed(folder: Path, after: int) -> None:
    """Mine in this process, which dies without tidying up."""
    use_small_parts(setattr)
    mine_hard_negatives(some_pairs(), WordCounter(killed_after=after), folder, rules=EASY, corpus=SOME_CORPUS)


def test_a_killed_run_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = {"LIGHTNING_JV5_CACHE": str(tmp_path / "killed")}
    process = in_process(mining_that_is_killed, tmp_path / "out", 45, environment=cache)
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert not (tmp_path / "out").exists()
    whole, rest = WordCounter(), WordCounter()
    mine_hard_negatives(some_pairs(), whole, tmp_path / "whole", rules=EASY, corpus=SOME_CORPUS)
    monkeypatch.setenv("LIGHTNING_JV5_CACHE", cache["LIGHTNING_JV5_CACHE"])
    mine_hard_negatives(some_pairs(), rest, tmp_path / "out", rules=EASY, corpus=SOME_CORPUS)
    assert 0 < len(rest.texts) <= len(whole.texts) - 40  # five shards of eight were whole
    assert (tmp_path / "out" / "pairs.parquet").read_bytes() == (tmp_path / "whole" / "pairs.parquet").read_bytes()


def test_other_rules_need_no_new_vectors(tmp_path: Path) -> None:
    first, second = WordCounter(), WordCounter()
    mine_hard_negatives(some_pairs(), first, tmp_path / "first", rules=EASY)
    mine_hard_negatives(some_pairs(), second, tmp_path / "second", rules=NegativeRules(negatives=1, depth=5))
    assert len(first.texts) > 0
    assert second.texts == []


# BEIR folders


def beir(folder: Path) -> str:
    corpus = [
        {"_id": f"d{row}", "text": text} for row, text in enumerate(["ant", "ant bee", "ant cat", "bee", "", "ant bee"])
    ]
    queries = [{"_id": "q", "text": "ant bee cat"}, {"_id": "p", "text": "bee"}]
    return write_beir(folder, corpus, queries, [("q", "d0", 2), ("q", "d1", 1), ("p", "d1", 2)])


def test_a_beir_folder_brings_its_corpus_and_all_that_is_relevant(tmp_path: Path) -> None:
    pairs = BeirFolder(beir(tmp_path / "beir"), min_grade=2, rows=1)
    summary = mine_hard_negatives(pairs, WordCounter(), tmp_path / "out", rules=EASY, layout="list")
    # ant bee answers with grade 1, under either of its ids; what has no text is no document
    assert [row["negatives"] for row in read(tmp_path / "out")] == [["ant cat", "bee"]]
    assert (summary.queries, summary.documents) == (1, 4)
    corpus = Rows({"text": ["gnu"]})
    mine_hard_negatives(pairs, WordCounter(), tmp_path / "other", rules=EASY, layout="list", corpus=corpus)
    assert [row["negatives"] for row in read(tmp_path / "other")] == [["gnu"]]


def test_other_columns_are_kept(tmp_path: Path) -> None:
    mine_hard_negatives(BeirFolder(beir(tmp_path / "beir")), WordCounter(), tmp_path / "out", rules=EASY)
    assert list(read(tmp_path / "out")[0]) == [
        *("query", "document", "query_id", "document_id"),
        *("negative", "negative_2", "negative_3"),
    ]


# Bad input

PAIR = {"query": ["ant"], "document": ["bee"]}
WRONG = {
    "no query": ({"qurey": ["ant"], "document": ["bee"]}, {}, r"pairs with the columns qurey, document; need 'query'\. "
                 "Did you mean 'qurey'"),
    "no rows": ({"query": [], "document": []}, {}, "Got pairs without any rows"),
    "mined before": ({**PAIR, "negative": ["cat"]}, {}, "The pairs have a column 'negative' already"),
    "an empty text": ({"query": ["ant", " "], "document": ["bee", "bee"]}, {}, r"pairs, row 1 .*'query' holds ' '"),
    "no corpus": (PAIR, {"corpus": Rows({"document": ["ant"]})}, "Got corpus with the columns document; need 'text'"),
    "nothing left": (PAIR, {}, r"None of 1 rows has a negative: of 1 candidates, 1 answer .*Make the margins smaller"),
    "no layout": (PAIR, {"layout": "rows"}, "Got layout 'rows'; need columns or list"),
    "no way": (PAIR, {"rows_without": "skip"}, "Got rows_without 'skip'; need drop or keep"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_mined_is_refused(tmp_path: Path, name: str) -> None:
    rows, settings, message = WRONG[name]
    with pytest.raises(ValueError, match=message):
        mine_hard_negatives(Rows(rows), WordCounter(), tmp_path / "out", **settings)  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


def test_an_output_that_exists_is_refused_before_anything_is_embedded(tmp_path: Path) -> None:
    model = WordCounter()
    with pytest.raises(ValueError, match=r"Got output .*, which exists already\. Name a new folder"):
        mine_hard_negatives(some_pairs(), model, tmp_path)
    assert model.texts == []
