import logging
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from lightning_jv5.tasks import RerankingTask, View, evaluate
from tests.metrics.references import slow_measure

from .labelled_texts import Rows, candidate_lists, encode_words


def slow_scores(columns: dict[str, list[Any]], view: View) -> dict[str, float]:
    """Order the candidates of one row after the other, those that tie with the wrong ones first."""
    values: dict[str, list[float]] = {"map@1000": [], "mrr@10": [], "ndcg@10": []}
    for query, positive, negative in zip(columns["query"], columns["positive"], columns["negative"], strict=True):
        if not positive or not negative:
            continue
        texts = [*positive, *negative]
        cut = [view.cut(encode_words(part, "document")) for part in ([query], texts)]
        scores = F.cosine_similarity(view.query(cut[0]).double(), view.document(cut[1]).double()).tolist()
        ranking = sorted(range(len(texts)), key=lambda row: (round(scores[row], 9), row), reverse=True)
        grades = dict.fromkeys(range(len(positive)), 1)
        for name, found in values.items():
            measure, k = name.split("@")
            found.append(slow_measure(measure, int(k), ranking, grades))
    return {name: sum(found) / len(found) for name, found in values.items()}


@pytest.mark.parametrize("view", [View(), View(dim=5), View(precision="asymmetric"), View(5, "int8")])
def test_scores_are_those_of_each_querys_own_candidates(view: View, caplog: pytest.LogCaptureFixture) -> None:
    rows = candidate_lists()
    with caplog.at_level(logging.WARNING):
        [score] = evaluate(encode_words, {"again": RerankingTask(rows)}, [view], progress=False, batch_texts=7)
    assert score.complete
    assert score.values == pytest.approx(slow_scores(rows.columns, view), abs=1e-6)
    assert 0.1 < score.values["map@1000"] < 1
    assert "Left out 2 of 12 queries without positive or negative texts" in caplog.text


def test_candidates_are_encoded_once_and_every_row_is_a_query() -> None:
    rows = Rows({"query": ["q", "q"], "positive": [["a"], ["b"]], "negative": [["b", "c"], ["a", "a"]]})
    task = RerankingTask(rows)
    task.prepare()
    assert [(part.role, list(part.texts), part.sharded) for part in task.parts()] == [
        ("query", ["q", "q"], False),
        ("document", ["a", "b", "c"], True),
    ]


def test_a_text_that_is_listed_twice_counts_once_and_as_right() -> None:
    rows = Rows({"query": ["q"], "positive": [["a", "a", "b"]], "negative": [["b", "c"]]})
    task = RerankingTask(rows)
    task.prepare()
    assert task.data.judgements == {"0": {"0": 1, "1": 1, "2": 0}}
    assert task.data.candidates == {"0": ["0", "1", "2"]}


def test_a_model_that_tells_nothing_apart_ranks_the_wrong_texts_first() -> None:
    rows = Rows({"query": ["q"], "positive": [["a"]], "negative": [[f"b{number}" for number in range(9)]]})
    task = RerankingTask(rows)
    [score] = evaluate(lambda texts, role: torch.ones(len(texts), 4), {"again": task}, progress=False)
    assert score.values["map@1000"] == pytest.approx(0.1)


def test_every_rank_of_a_long_list_counts() -> None:
    rows = Rows({"query": ["q"], "positive": [["a"]], "negative": [[f"b{number}" for number in range(299)]]})
    [score] = evaluate(lambda texts, role: torch.ones(len(texts), 4), {"again": RerankingTask(rows)}, progress=False)
    assert score.values["map@1000"] == pytest.approx(1 / 300)
    assert score.values["mrr@10"] == 0.0


def test_groups_are_those_of_the_rows_that_are_kept() -> None:
    task = RerankingTask(candidate_lists(), group="lang")
    task.prepare()
    assert task.data.groups == {str(row): ["de", "en"][row % 3] for row in range(1, 11) if row % 3 < 2}


ROW = {"query": ["q"], "positive": [["a"]], "negative": [["b"]]}


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"query": ["q"], "positive": [["a"]]}, "Got rows with the columns query, positive; need 'negative'"),
        ({"query": [], "positive": [], "negative": []}, "Got rows without any rows"),
        (ROW | {"positive": ["a"]}, r"Got rows with positive='a' in row 0 \(the first is 0\); need a list of texts"),
        (ROW | {"negative": [[1]]}, r"Got rows with negative=\[1\] in row 0"),
        (ROW | {"negative": [["b", None]]}, "Got rows with negative="),
        (ROW | {"positive": [[]]}, "Got 1 rows of which none has both positive and negative texts"),
    ],
)
def test_prepare_says_what_is_wrong(columns: dict[str, list[Any]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RerankingTask(Rows(columns)).prepare()


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="Got measure 'map'"):
        RerankingTask(Rows(ROW), main_metric="map")
    with pytest.raises(ValueError, match="Got rows with the columns query, positive, negative; need 'lang'"):
        RerankingTask(Rows(ROW), group="lang").prepare()
