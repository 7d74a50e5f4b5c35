from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.neighbors import KNeighborsClassifier

from lightning_jv5.tasks import ClassificationTask, View, evaluate
from lightning_jv5.tasks.classification import few_shot_draws

from .labelled_texts import Rows, encode_words, labelled


def slow_draws(labels: list[Any], samples: int, experiments: int, seed: int) -> list[list[int]]:
    """Look at every row in every experiment."""
    order, draws = list(range(len(labels))), []
    for _ in range(experiments):
        generator = np.random.RandomState(seed)
        generator.shuffle(order)
        draws.append([row for place, row in enumerate(order) if _same_before(labels, order, place) < samples])
    return draws


def _same_before(labels: list[Any], order: list[int], place: int) -> int:
    return sum(labels[row] == labels[order[place]] for row in order[:place])


@pytest.mark.parametrize("samples", [1, 3, 100])
def test_draws_shuffle_on_from_the_order_of_the_experiment_before(samples: int) -> None:
    labels = [*np.random.default_rng(0).integers(0, 4, 50).tolist(), 9]
    draws = few_shot_draws(labels, samples, experiments=4, seed=42)
    assert draws == slow_draws(labels, samples, 4, 42)
    assert draws[0] != draws[1]
    counts = Counter(labels)
    for rows in draws:
        drawn = Counter(labels[row] for row in rows)
        assert drawn == {label: min(count, samples) for label, count in counts.items()}


@pytest.mark.parametrize("view", [View(), View(dim=5), View(precision="binary")])
@pytest.mark.parametrize("whole_numbers", [False, True])
def test_scores_are_those_of_mtebs_protocol(view: View, whole_numbers: bool) -> None:
    train, test = labelled(80, seed=0), labelled(40, seed=1)
    if whole_numbers:
        for rows in (train, test):
            rows.columns["label"] = [["late", "early", "middle"].index(label) for label in rows.columns["label"]]
    vectors, others = (
        view.document(view.cut(encode_words(rows.columns["text"], "document"))).numpy() for rows in (train, test)
    )
    labels, truth = np.array(train.columns["label"]), np.array(test.columns["label"])
    accuracies, f1s, nearest = [], [], []
    of_labels: dict[str, list[Any]] = {str(label): [] for label in sorted(set(truth.tolist()))}
    for drawn in slow_draws(labels.tolist(), 4, 5, 42):
        model = LogisticRegression(max_iter=100, random_state=42).fit(vectors[drawn], labels[drawn])
        accuracies.append(model.score(others, truth))
        f1s.append(f1_score(truth, model.predict(others), average="macro"))
        neighbours = KNeighborsClassifier(n_neighbors=5).fit(vectors[drawn], labels[drawn])
        nearest.append(neighbours.score(others, truth))
        for label in set(truth.tolist()):
            mine, predicted = truth == label, model.predict(others)
            f1 = f1_score(mine, predicted == label)
            of_labels[str(label)].append(
                [np.mean(predicted[mine] == label), f1, neighbours.score(others[mine], truth[mine])]
            )
    task = ClassificationTask(train, test, samples_per_label=4, experiments=5)
    [score] = evaluate(encode_words, {"topics": task}, [view], progress=False, batch_texts=7)
    expected = {
        "accuracy": np.mean(accuracies),
        "accuracy_std": np.std(accuracies),
        "f1": np.mean(f1s),
        "knn_accuracy": np.mean(nearest),
    }
    assert score.complete
    assert score.values == pytest.approx(expected, abs=1e-6)
    assert np.std(accuracies) > 0
    metric = task.metric(view)
    metric.update("document", encode_words(task.parts()[0].texts, "document"), torch.arange(metric.text_count))
    by_label = metric.breakdown()
    assert list(by_label) == list(of_labels)
    for label, values in by_label.items():
        means = np.mean(of_labels[label], axis=0)
        assert values == pytest.approx(dict(zip(["accuracy", "f1", "knn_accuracy"], means, strict=True)), abs=1e-6)


def test_only_texts_that_are_drawn_or_tested_are_encoded_and_once() -> None:
    train, test = labelled(200, seed=2), labelled(20, seed=3)
    encoded: list[str] = []

    def encode(texts: list[str], role: str) -> Any:
        assert role == "query"
        encoded.extend(texts)
        return encode_words(texts, role)

    task = ClassificationTask(train, test, samples_per_label=2, experiments=2, role="query")
    evaluate(encode, {"topics": task}, progress=False)
    drawn = {row for rows in slow_draws(train.columns["label"], 2, 2, 42) for row in rows}
    wanted = {train.columns["text"][row] for row in drawn} | set(test.columns["text"])
    assert sorted(encoded) == sorted(wanted)
    assert len(encoded) <= 2 * 2 * 3 + 20


def test_a_label_with_few_rows_gives_what_it_has() -> None:
    train = Rows({"text": list("abcd"), "label": [0, 0, 0, 1]})
    task = ClassificationTask(train, Rows({"text": ["e"], "label": [1]}), samples_per_label=3, experiments=1)
    task.prepare()
    assert sorted(task.parts()[0].texts) == list("abcde")


TWO = {"text": ["a", "b"], "label": ["x", "y"]}


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        ({"text": ["a"]}, TWO, "Got train with the columns text; need 'label'"),
        (TWO, {"label": ["x"]}, "Got test with the columns label; need 'text'"),
        ({"text": [], "label": []}, TWO, "Got train without any rows"),
        (TWO, {"text": [], "label": []}, "Got test without any rows"),
        ({"text": ["a", "b"], "label": ["x", "x"]}, TWO, "Got 2 training texts with the single label 'x'; need at lea"),
        (TWO, {"text": ["a"], "label": ["z"]}, "1 labels that no training text has, such as 'z'; .* such as 'x'"),
        (TWO, {"text": ["a"], "label": [0]}, "1 labels that no training text has, such as 0"),
    ],
)
def test_prepare_says_what_is_wrong(train: dict[str, Any], test: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ClassificationTask(Rows(train), Rows(test)).prepare()


@pytest.mark.parametrize("name", ["samples_per_label", "experiments", "max_iter"])
def test_numbers_that_are_too_small_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"Got {name}=0; need at least 1"):
        ClassificationTask(Rows(TWO), Rows(TWO), **{name: 0})
