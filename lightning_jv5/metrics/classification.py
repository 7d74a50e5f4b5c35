"""How well a few labelled embeddings classify others: logistic regression and nearest neighbours, as in mteb."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from lightning_jv5.metrics.whole_set import WholeSetMetric

CLASSIFICATION_MEASURES = ("accuracy", "accuracy_std", "f1", "knn_accuracy")

_NEIGHBOURS = 5


@dataclass(frozen=True)
class LabelledTexts:
    """Some rows with labels.

    Attributes:
        texts: Text of each row, as its position among the task's; int64, shape ``(rows,)``.
        labels: Label of each row; shape ``(rows,)``.
    """

    texts: NDArray[np.int64]
    labels: NDArray[Any]

    def __post_init__(self) -> None:
        if self.texts.ndim != 1 or self.texts.shape != self.labels.shape or not len(self.texts):
            raise ValueError(
                f"Got texts {self.texts.shape} and labels {self.labels.shape}; need (rows,) of both, and at least one "
                "row. Give every text a label."
            )


def logistic_predictions(
    train: NDArray[np.float32], labels: NDArray[Any], test: NDArray[np.float32], *, max_iter: int, seed: int
) -> NDArray[Any]:
    """Predict labels by logistic regression with scikit-learn's defaults, as mteb's ``AbsTaskClassification`` does.

    Args:
        train: Embeddings with labels; shape ``(train rows, dim)``.
        labels: Their labels, two or more different ones; shape ``(train rows,)``.
        test: Embeddings to classify; shape ``(test rows, dim)``.
        max_iter: Most iterations of the solver; that it has not converged by then is part of the protocol.
        seed: Seed of the solver; numpy's own state is not touched.

    Returns:
        Predicted labels, shape ``(test rows,)``.

    >>> train = np.array([[0.0, 1.0], [1.0, 0.0]], dtype=np.float32)
    >>> logistic_predictions(train, np.array(["up", "right"]), train, max_iter=100, seed=42).tolist()
    ['up', 'right']
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    classifier = LogisticRegression(max_iter=max_iter, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return np.asarray(classifier.fit(train, labels).predict(test))


def neighbour_predictions(
    train: NDArray[np.float32], labels: NDArray[Any], test: NDArray[np.float32], *, neighbours: int = _NEIGHBOURS
) -> NDArray[Any]:
    """Predict the most frequent label of the nearest embeddings; arguments as in :func:`logistic_predictions`.

    With scikit-learn's ``KNeighborsClassifier(n_neighbors=5)``, the classifier of mteb's multilabel tasks: by Euclidean
    distance, which ranks unit-length embeddings as their cosine does. Fewer neighbours where there are fewer rows.

    >>> train = np.array([[0.0, 1.0], [0.1, 1.0], [1.0, 0.0]], dtype=np.float32)
    >>> neighbour_predictions(train, np.array(["up", "up", "right"]), train, neighbours=3).tolist()
    ['up', 'up', 'up']
    """
    from sklearn.neighbors import KNeighborsClassifier

    classifier = KNeighborsClassifier(n_neighbors=min(neighbours, len(train)))
    return np.asarray(classifier.fit(train, labels).predict(test))


class FewShotClassification(WholeSetMetric):
    """Accuracy on the test rows of classifiers that are each fitted to a few rows, averaged over these experiments.

    Args:
        experiments: The rows that each experiment fits.
        test: The rows that all are scored on.
        max_iter: Most iterations of logistic regression.
        seed: Its seed.
        text_count: Number of texts.

    Raises:
        ValueError: If there are no experiments, or one has a single label.

    >>> import torch
    >>> train = LabelledTexts(np.array([0, 1]), np.array(["up", "right"]))
    >>> test = LabelledTexts(np.array([2, 3]), np.array(["up", "right"]))
    >>> metric = FewShotClassification([train], test, max_iter=100, seed=42, text_count=4)
    >>> metric.update("document", torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.1, 0.9], [0.9, 0.1]]), torch.arange(4))
    >>> metric.compute()["accuracy"]
    tensor(1.)
    """

    def __init__(
        self,
        experiments: Sequence[LabelledTexts],
        test: LabelledTexts,
        *,
        max_iter: int,
        seed: int,
        text_count: int,
    ) -> None:
        super().__init__(text_count, CLASSIFICATION_MEASURES)
        fewest = min((len(np.unique(train.labels)) for train in experiments), default=0)
        if fewest < 2:
            raise ValueError(
                f"Got {len(experiments)} experiments, with {fewest} labels at the least; need one or more, each with "
                "at least two labels. Check the task's training data."
            )
        self._experiments, self._test = list(experiments), test
        self._max_iter, self._seed = max_iter, seed

    def score(self, embeddings: Tensor) -> dict[str, float]:
        """Return the mean ``accuracy``, its ``accuracy_std``, macro ``f1`` and ``knn_accuracy``, in [0, 1].

        A label of the test rows is a group, and its accuracy the share of its rows that are given it.
        """
        from sklearn.metrics import f1_score, recall_score

        vectors, labels = np.asarray(self.document(embeddings)), self._test.labels
        test, known = vectors[self._test.texts], np.unique(labels)
        accuracies, f1s, knn_accuracies = [], [], []
        of_labels: dict[str, list[NDArray[np.float64]]] = {"accuracy": [], "f1": [], "knn_accuracy": []}
        for few in self._experiments:
            train = vectors[few.texts]
            predicted = logistic_predictions(train, few.labels, test, max_iter=self._max_iter, seed=self._seed)
            nearest = neighbour_predictions(train, few.labels, test)
            accuracies.append(np.mean(predicted == labels))
            f1s.append(f1_score(labels, predicted, average="macro"))
            knn_accuracies.append(np.mean(nearest == labels))
            of_labels["accuracy"].append(recall_score(labels, predicted, labels=known, average=None))
            of_labels["f1"].append(f1_score(labels, predicted, labels=known, average=None))
            of_labels["knn_accuracy"].append(recall_score(labels, nearest, labels=known, average=None))
        means = {measure: np.mean(values, axis=0) for measure, values in of_labels.items()}
        self.groups = {
            str(label): {measure: float(mean[place]) for measure, mean in means.items()}
            for place, label in enumerate(known)
        }
        return {
            "accuracy": float(np.mean(accuracies)),
            "accuracy_std": float(np.std(accuracies)),
            "f1": float(np.mean(f1s)),
            "knn_accuracy": float(np.mean(knn_accuracies)),
        }
