import random
from typing import Any

import numpy as np
import pytest
from sklearn.cluster import MiniBatchKMeans
from sklearn.metrics import v_measure_score

from lightning_jv5.tasks import ClusteringTask, View, evaluate

from .labelled_texts import Rows, encode_words, labelled


def scores_of(task: ClusteringTask, view: View) -> dict[str, float]:
    [score] = evaluate(encode_words, {"topics": task}, [view], progress=False, batch_texts=7)
    assert score.complete
    return score.values


def vectors_of(rows: Rows, view: View) -> np.ndarray:
    return np.asarray(view.document(view.cut(encode_words(rows.columns["text"], "document"))))


VIEWS = [View(), View(dim=5), View(precision="binary")]


@pytest.mark.parametrize("view", VIEWS)
def test_by_default_all_texts_are_clustered_once_as_in_mtebs_legacy_task(view: View) -> None:
    rows = labelled(60, seed=0)
    model = MiniBatchKMeans(n_clusters=3, batch_size=500, n_init="auto", compute_labels=True, random_state=42)
    model.fit(vectors_of(rows, view))
    expected = v_measure_score(rows.columns["label"], model.labels_)
    assert scores_of(ClusteringTask(rows), view) == pytest.approx({"v_measure": expected}, abs=1e-6)
    assert 0.05 < expected < 1


@pytest.mark.parametrize("view", VIEWS)
def test_bootstraps_are_drawn_as_in_mtebs_newer_task(view: View) -> None:
    rows = labelled(90, seed=1)
    generator = random.Random(42)
    kept = generator.sample(range(90), k=50)
    vectors, labels = vectors_of(rows, view)[kept], np.array(rows.columns["label"])[kept]
    model = MiniBatchKMeans(n_clusters=3, batch_size=512, init="k-means++", n_init=1, random_state=42)
    values = []
    for _ in range(4):
        drawn = generator.choices(range(50), k=70)
        values.append(v_measure_score(labels[drawn], model.fit_predict(vectors[drawn])))
    task = ClusteringTask(rows, batch_size=512, repeats=4, bootstrap=70, max_texts=50)
    expected = {"v_measure": np.mean(values), "v_measure_std": np.std(values)}
    assert scores_of(task, view) == pytest.approx(expected, abs=1e-6)


def test_repeats_differ_in_the_seed_of_k_means() -> None:
    rows = labelled(60, seed=2)
    one, two = (scores_of(ClusteringTask(rows, seed=seed), View())["v_measure"] for seed in (42, 43))
    both = scores_of(ClusteringTask(rows, repeats=2), View())
    assert both == pytest.approx({"v_measure": (one + two) / 2, "v_measure_std": abs(one - two) / 2}, abs=1e-6)
    assert one != two


def test_equal_texts_are_encoded_once_and_clustered_as_often_as_they_are_there() -> None:
    columns = labelled(30, seed=3).columns
    doubled = Rows({name: values + values[:10] for name, values in columns.items()})
    task = ClusteringTask(doubled, clusters=4)
    values = scores_of(task, View())
    assert len(task.parts()[0].texts) == 30
    model = MiniBatchKMeans(n_clusters=4, batch_size=500, n_init="auto", random_state=42)
    assigned = model.fit_predict(vectors_of(doubled, View()))
    assert values["v_measure"] == pytest.approx(v_measure_score(doubled.columns["label"], assigned), abs=1e-6)


@pytest.mark.parametrize(
    ("columns", "settings", "message"),
    [
        ({"text": ["a"]}, {}, "Got texts with the columns text; need 'label'"),
        ({"text": [], "label": []}, {}, "Got texts without any rows"),
        ({"text": ["a", "b"], "label": [1, 1]}, {}, "Got 2 texts with the single label 1; need at least two labels"),
        ({"text": ["a", "b"], "label": [1, 2]}, {"clusters": 3}, "Got 2 rows to put into 3 clusters; need at least"),
        ({"text": list("abc"), "label": [1, 2, 3]}, {"bootstrap": 2}, "Got 2 rows to put into 3 clusters"),
    ],
)
def test_prepare_says_what_is_wrong(columns: dict[str, list[Any]], settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ClusteringTask(Rows(columns), **settings).prepare()


@pytest.mark.parametrize(
    ("name", "value"), [("clusters", 1), ("batch_size", 0), ("repeats", 0), ("bootstrap", 1), ("max_texts", 1)]
)
def test_numbers_that_are_too_small_are_refused(name: str, value: int) -> None:
    with pytest.raises(ValueError, match=f"Got {name}={value}; need at least"):
        ClusteringTask(Rows({}), **{name: value})
