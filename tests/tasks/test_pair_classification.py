from typing import Any

import pytest
from sklearn.metrics import average_precision_score
from torch.nn import functional as F

from lightning_jv5.tasks import PairClassificationTask, View, evaluate
from tests.metrics.test_pair_classification import slow_best

from .labelled_texts import Rows, encode_words, judged_pairs


@pytest.mark.parametrize(
    "view", [View(), View(dim=5), View(precision="binary"), View(precision="asymmetric"), View(5, "int8")]
)
def test_scores_are_scikit_learns_of_float64_cosines(view: View) -> None:
    pairs = judged_pairs()
    [score] = evaluate(encode_words, {"same": PairClassificationTask(pairs)}, [view], progress=False, batch_texts=7)
    cut = [view.cut(encode_words(pairs.columns[name], "document")) for name in ("text1", "text2")]
    left, right = view.query(cut[0]).double(), view.document(cut[1]).double()
    cosines = F.cosine_similarity(left, right).numpy().round(12)  # so that bits tie
    labels = pairs.columns["label"]
    assert score.complete
    assert score.values == pytest.approx(
        {
            "ap": average_precision_score(labels, cosines),
            "accuracy": slow_best(cosines.tolist(), labels, "accuracy"),
            "f1": slow_best(cosines.tolist(), labels, "f1"),
        },
        abs=1e-6,
    )
    assert 0.3 < score.values["ap"] < 1


def test_labels_may_be_numbers_and_a_text_in_several_pairs_is_encoded_once() -> None:
    task = PairClassificationTask(Rows({"text1": ["a", "b"], "text2": ["b", "c"], "label": [1, 0]}), role="query")
    task.prepare()
    [part] = task.parts()
    assert (part.role, part.texts, part.sharded) == ("query", ["a", "b", "c"], True)


PAIR = {"text1": ["a", "b"], "text2": ["b", "c"]}


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"text1": ["a"], "label": [1]}, "Got pairs with the columns text1, label; need 'text2'"),
        (PAIR, "need 'label'"),
        ({"text1": [], "text2": [], "label": []}, "Got pairs without any rows"),
        (PAIR | {"label": [1, 1]}, "Got 2 pairs whose labels are all 1; need some of both classes"),
        (PAIR | {"label": [False, False]}, "Got 2 pairs whose labels are all 0"),
        (PAIR | {"label": [0, 2]}, r"Got pairs with the label 2 in row 1 \(the first is 0\); need 0 or 1"),
        (PAIR | {"label": ["yes", "no"]}, "Got pairs with the label 'yes' in row 0"),
        (PAIR | {"label": [1.0, None]}, "Got pairs with the label 1.0 in row 0"),
    ],
)
def test_prepare_says_what_is_wrong(columns: dict[str, list[Any]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PairClassificationTask(Rows(columns)).prepare()


def test_a_column_of_groups_that_is_not_there_is_missed() -> None:
    with pytest.raises(ValueError, match="Got pairs with the columns text1, text2, label, lang; need 'language'"):
        PairClassificationTask(judged_pairs(), group="language").prepare()
