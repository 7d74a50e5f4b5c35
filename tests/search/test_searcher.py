from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lightning_jv5.encoder import Encoder, load
from lightning_jv5.search.corpus import Corpus, open_corpus
from lightning_jv5.search.searcher import Searcher
from tests.tiny_models import TEXTS

QUERY = "the red cat on the mat"


@pytest.mark.parametrize("task", ["none", "retrieval"])
def test_hits_are_the_nearest_of_that_task(searcher: Searcher, encoder: Encoder, corpus: Corpus, task: str) -> None:
    name = None if task == "none" else task
    found = searcher.answer({"q": QUERY, "task": task, "depth": "5"})
    cosines = encoder.similarity(
        encoder.encode_query(QUERY, task=name), encoder.encode_document(corpus.texts, task=name)
    )[0]
    best = cosines.topk(5)
    assert [hit["row"] for hit in found["reference"]["hits"]] == best.indices.tolist()
    assert [hit["score"] for hit in found["reference"]["hits"]] == pytest.approx(best.values.tolist(), abs=1e-5)
    assert [hit["text"] for hit in found["reference"]["hits"]] == [corpus.texts[row] for row in best.indices.tolist()]


def test_no_task_is_the_model_alone_where_the_path_is_that_of_an_adapter(
    model: str, adapter: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIGHTNING_JV5_CACHE", str(tmp_path))
    (tmp_path / "texts.txt").write_text("\n".join(TEXTS))
    alone, encoder = load(model, "cpu"), load(adapter, "cpu")
    corpus = open_corpus(str(tmp_path / "texts.txt"), encoder, tasks=[None, "clustering"])
    expected = {None: alone.encode_document(TEXTS), "clustering": encoder.encode_document(TEXTS)}
    queries = {None: alone.encode_query(QUERY), "clustering": encoder.encode_query(QUERY)}
    assert abs(expected[None] - expected["clustering"]).max() > 0.01
    for task, vectors in expected.items():
        np.testing.assert_allclose(corpus.vectors[task], vectors, atol=1e-6)
        hits = Searcher(encoder, corpus).answer({"q": QUERY, "task": task or "none"})["reference"]["hits"]
        scores = {hit["row"]: hit["score"] for hit in hits}
        assert [scores[row] for row in range(len(TEXTS))] == pytest.approx(list(vectors @ queries[task]), abs=1e-5)


def test_the_same_view_keeps_every_hit_at_its_rank(searcher: Searcher) -> None:
    found = searcher.answer({"q": QUERY, "precision": "float", "dim": "32"})
    assert found["kept"] == found["depth"] == 10
    for side in ("reference", "view"):
        assert [hit["other_rank"] for hit in found[side]["hits"]] == list(range(1, 11))


def test_ranks_in_the_other_view_fit_each_other(searcher: Searcher) -> None:
    everything = searcher.answer({"q": QUERY, "dim": "8", "precision": "binary", "depth": "100"})
    whole, cut = ({hit["row"]: hit["rank"] for hit in everything[side]["hits"]} for side in ("reference", "view"))
    assert len(whole) == len(cut) == everything["documents"]
    found = searcher.answer({"q": QUERY, "dim": "8", "precision": "binary", "depth": "4"})
    for side, other in (("reference", cut), ("view", whole)):
        assert [hit["other_rank"] for hit in found[side]["hits"]] == [other[hit["row"]] for hit in found[side]["hits"]]
    kept = sum(hit["other_rank"] <= 4 for hit in found["reference"]["hits"])
    assert found["kept"] == kept == sum(hit["other_rank"] <= 4 for hit in found["view"]["hits"])
    assert kept < 4  # or nothing would be lost here


def test_sizes_and_times_are_told(searcher: Searcher) -> None:
    found = searcher.answer({"q": QUERY, "dim": "16", "precision": "binary"})
    assert (found["reference"]["bytes_per_vector"], found["view"]["bytes_per_vector"]) == (128, 2)
    assert min(found["encode_ms"], found["reference"]["search_ms"], found["view"]["search_ms"]) > 0
    assert searcher.searches == 1


def test_dims_are_halved_down_to_16(encoder: Encoder) -> None:
    def dims(width: int) -> Any:
        return Searcher(encoder, Corpus("c", ["a"], {None: torch.zeros(1, width)})).about()["dims"]

    assert dims(384) == [384, 256, 128, 64, 32, 16]
    assert dims(32) == [32, 16]
    assert dims(12) == [12]


def test_what_can_be_asked_is_told(searcher: Searcher, model: str) -> None:
    about = searcher.about()
    assert (about["model"], about["documents"], about["tasks"]) == (model, 23, ["none", "retrieval"])


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"q": "  "}, "Got an empty query; need some words"),
        ({}, "Got an empty query"),
        ({"q": "a", "dim": "33"}, "Got dim '33'; need a whole number from 1 to 32"),
        ({"q": "a", "dim": "x"}, "Got dim 'x'"),
        ({"q": "a", "dim": "-1"}, "Got dim '-1'"),
        ({"q": "a", "depth": "101"}, "Got depth '101'; need a whole number from 1 to 100"),
        ({"q": "a", "precision": "int4"}, "Got precision 'int4'; need one of float, int8, binary"),
        ({"q": "a", "task": "sorting"}, "Got task 'sorting'; the corpus was encoded for none, retrieval"),
        ({"q": "a", "dims": "16"}, "Got 'dims'; need q, dim, precision, task, depth. Did you mean 'dim'"),
    ],
    ids=str,
)
def test_wrong_questions_are_named(searcher: Searcher, asked: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        searcher.answer(asked)
