from typing import Any

import pytest

from lightning_jv5.tasks import BitextMiningTask, View, evaluate
from tests.metrics.test_bitext_mining import slow_found, weighted

from .labelled_texts import Rows, encode_words, translations


@pytest.mark.parametrize(
    "view", [View(), View(dim=5), View(precision="binary"), View(precision="asymmetric"), View(5, "int8")]
)
def test_scores_are_mtebs_of_float64_cosines(view: View) -> None:
    pairs = translations()
    assert len(set(pairs.columns["text2"])) < 40  # some targets are in several rows
    [score] = evaluate(encode_words, {"bitext": BitextMiningTask(pairs)}, [view], progress=False, batch_texts=7)
    cut = [view.cut(encode_words(pairs.columns[name], "document")) for name in ("text1", "text2")]
    found = slow_found(view.query(cut[0]), view.document(cut[1]))
    assert score.complete
    assert score.values == pytest.approx(weighted(found), abs=1e-6)
    assert 0.1 < score.values["f1"] < 1


def test_a_text_on_both_sides_is_encoded_once() -> None:
    task = BitextMiningTask(Rows({"text1": ["a", "b", "a"], "text2": ["b", "c", "b"]}), role="query")
    task.prepare()
    [part] = task.parts()
    assert (part.role, part.texts, part.sharded) == ("query", ["a", "b", "c"], True)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"sentence1": ["a"], "text2": ["b"]}, "Got pairs with the columns sentence1, text2; need 'text1'"),
        ({"text1": [], "text2": []}, "Got pairs without any rows"),
    ],
)
def test_prepare_says_what_is_wrong(columns: dict[str, list[Any]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BitextMiningTask(Rows(columns)).prepare()


def test_a_column_of_groups_that_is_not_there_is_missed() -> None:
    with pytest.raises(ValueError, match="Got pairs with the columns text1, text2, lang; need 'language'"):
        BitextMiningTask(translations(), group="language").prepare()
