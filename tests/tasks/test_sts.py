from typing import Any

import pytest
import torch
from scipy import stats
from torch.nn import functional as F

from lightning_jv5.tasks import STSTask, View, evaluate

from .labelled_texts import Rows, encode_words, scored_pairs


@pytest.mark.parametrize(
    "view", [View(), View(dim=5), View(precision="binary"), View(precision="asymmetric"), View(5, "int8")]
)
def test_scores_are_scipys_of_float64_cosines(view: View) -> None:
    pairs = scored_pairs()
    [score] = evaluate(encode_words, {"sts": STSTask(pairs)}, [view], progress=False, batch_texts=7)
    cut = [view.cut(encode_words(pairs.columns[name], "document")) for name in ("text1", "text2")]
    left, right = view.query(cut[0]).double(), view.document(cut[1]).double()
    cosines = F.cosine_similarity(left, right).numpy().round(12)  # so that bits tie
    assert score.complete
    assert score.values == pytest.approx(
        {
            "spearman": stats.spearmanr(cosines, pairs.columns["score"]).statistic,
            "pearson": stats.pearsonr(cosines, pairs.columns["score"]).statistic,
        },
        abs=1e-6,
    )


def test_a_text_in_several_pairs_is_encoded_once() -> None:
    task = STSTask(Rows({"text1": ["a", "b", "a"], "text2": ["b", "b", "c"], "score": [1, 2, 0]}), role="query")
    task.prepare()
    [part] = task.parts()
    assert (part.role, part.texts, part.sharded) == ("query", ["a", "b", "c"], True)


def test_groups_correlate_by_themselves_unless_they_are_too_small_or_their_scores_equal() -> None:
    columns = dict(scored_pairs().columns)
    columns["lang"] = ["one", *["two"] * 2, *["de", "en", None] * 9]
    columns["score"] = [1.0, 2.0, 2.0, *columns["score"][3:]]
    task = STSTask(Rows(columns), group="lang")
    task.prepare()
    [part] = task.parts()
    metric = task.metric(View())
    metric.update("document", encode_words(part.texts, "document"), torch.arange(len(part.texts)))
    found = metric.breakdown()
    assert list(found) == ["de", "en"]
    for lang, values in found.items():
        rows = [row for row in range(30) if columns["lang"][row] == lang]
        alone = STSTask(Rows({name: [column[row] for row in rows] for name, column in columns.items()}))
        [score] = evaluate(encode_words, {"sts": alone}, progress=False)
        assert values == pytest.approx(score.values, abs=1e-6)
    with pytest.raises(ValueError, match="Got pairs with the columns text1, text2, score, lang; need 'language'"):
        STSTask(Rows(columns), group="language").prepare()


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"text1": ["a"], "text": ["b"], "score": [1]}, "Got pairs with the columns text1, text, score; need 'text2'"),
        ({"text1": ["a"], "text2": ["b"]}, "need 'score'"),
        ({"text1": [], "text2": [], "score": []}, "Got pairs without any rows"),
        ({"text1": ["a"], "text2": ["b"], "score": [1]}, "Got 1 pairs whose scores are all 1.0; need two different"),
        ({"text1": ["a", "b"], "text2": ["b", "c"], "score": [2, 2]}, "Got 2 pairs whose scores are all 2.0"),
        ({"text1": ["a", "b"], "text2": ["b", "c"], "score": [2, None]}, "the score None in row 1"),
    ],
)
def test_prepare_says_what_is_wrong(columns: dict[str, list[Any]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        STSTask(Rows(columns)).prepare()
