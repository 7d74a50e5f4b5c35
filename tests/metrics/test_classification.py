import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score
from sklearn.neighbors import KNeighborsClassifier

from lightning_jv5.metrics import FewShotClassification
from lightning_jv5.metrics.classification import LabelledTexts, logistic_predictions, neighbour_predictions


def labelled_vectors(seed: int, rows: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 3, rows)
    return (np.eye(3, 6)[labels] * 2 + generator.normal(size=(rows, 6))).astype(np.float32), labels


def slow_neighbours(train: np.ndarray, labels: np.ndarray, test: np.ndarray, k: int) -> list[int]:
    """Count the labels of the k nearest; of equally frequent ones take the smallest."""
    found = []
    for vector in test.astype(np.float64):
        nearest = sorted(range(len(train)), key=lambda row: ((train[row] - vector) ** 2).sum())[:k]
        counts = np.bincount(labels[nearest])
        found.append(int(counts.argmax()))
    return found


def slow_macro_f1(labels: list[int], predicted: list[int]) -> float:
    """Mean over the labels of 2 TP / (2 TP + FP + FN)."""
    pairs = list(zip(labels, predicted, strict=True))
    values = []
    for label in set(labels) | set(predicted):
        hits = sum(a == b == label for a, b in pairs)
        misses = sum((a == label) != (b == label) for a, b in pairs)
        values.append(2 * hits / (2 * hits + misses))
    return sum(values) / len(values)


def test_predictions_are_those_of_mtebs_classifiers() -> None:
    train, labels = labelled_vectors(0, 24)
    test, _ = labelled_vectors(1, 200)
    expected = LogisticRegression(max_iter=100).set_params(random_state=42).fit(train, labels).predict(test)
    assert logistic_predictions(train, labels, test, max_iter=100, seed=42).tolist() == expected.tolist()
    nearest = KNeighborsClassifier(n_neighbors=5).fit(train, labels).predict(test)
    assert neighbour_predictions(train, labels, test).tolist() == nearest.tolist()
    assert nearest.tolist() == slow_neighbours(train, labels, test, 5)
    assert (nearest != expected).any()


def test_few_iterations_are_not_more_and_warn_of_nothing(recwarn: pytest.WarningsRecorder) -> None:
    train, labels = labelled_vectors(0, 24)
    test, _ = labelled_vectors(1, 200)
    few, many = (logistic_predictions(train, labels, test, max_iter=most, seed=42) for most in (1, 100))
    assert (few != many).any()
    assert [str(warning.message) for warning in recwarn] == []


def test_the_metric_averages_its_experiments() -> None:
    vectors, labels = labelled_vectors(2, 150)
    names = np.array(["cat", "dog", "owl"])[labels]
    generator = np.random.default_rng(0)
    few = [generator.permutation(50)[:12] for _ in range(3)]
    test = np.arange(50, 150)
    metric = FewShotClassification(
        [LabelledTexts(rows, names[rows]) for rows in few],
        LabelledTexts(test, names[test]),
        max_iter=100,
        seed=42,
        text_count=150,
    )
    metric.update("document", torch.from_numpy(vectors), torch.arange(150))
    accuracies, f1s, nearest = [], [], []
    for rows in few:
        model = LogisticRegression(max_iter=100, random_state=42).fit(vectors[rows], labels[rows])
        predicted = model.predict(vectors[test])
        accuracies.append(accuracy_score(labels[test], predicted))
        f1s.append(f1_score(labels[test], predicted, average="macro"))
        assert f1s[-1] == pytest.approx(slow_macro_f1(labels[test].tolist(), predicted.tolist()))
        nearest.append(KNeighborsClassifier(5).fit(vectors[rows], labels[rows]).score(vectors[test], labels[test]))
    expected = {
        "accuracy": np.mean(accuracies),
        "accuracy_std": np.std(accuracies),
        "f1": np.mean(f1s),
        "knn_accuracy": np.mean(nearest),
    }
    computed = {name: value.item() for name, value in metric.compute().items()}
    assert computed == pytest.approx(expected, abs=1e-6)
    assert len(set(computed.values())) == 4


def test_fewer_rows_than_neighbours_are_all_neighbours() -> None:
    train = np.array([[0.0], [1.0], [1.1]], dtype=np.float32)
    assert neighbour_predictions(train, np.array([4, 7, 7]), train).tolist() == [7, 7, 7]


def test_what_does_not_fit_is_refused() -> None:
    rows = LabelledTexts(np.arange(2), np.array(["a", "a"]))
    with pytest.raises(ValueError, match="Got 1 experiments, with 1 labels at the least; need one or more"):
        FewShotClassification([rows], rows, max_iter=100, seed=42, text_count=2)
    with pytest.raises(ValueError, match="Got 0 experiments"):
        FewShotClassification([], rows, max_iter=100, seed=42, text_count=2)
    with pytest.raises(ValueError, match=r"Got texts \(2,\) and labels \(1,\); need \(rows,\) of both"):
        LabelledTexts(np.arange(2), np.array(["a"]))
