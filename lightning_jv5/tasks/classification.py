"""Classification: do a few labelled texts tell the labels of others?"""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from lightning_jv5.data.source import Source
from lightning_jv5.metrics.classification import CLASSIFICATION_MEASURES, FewShotClassification, LabelledTexts
from lightning_jv5.tasks.columns import label_column, text_column
from lightning_jv5.tasks.whole_set import DistinctTexts, Role, WholeSetTask


class ClassificationTask(WholeSetTask):
    """Fit classifiers to a few training texts of each label and score them on the test texts, as in mteb.

    The protocol is that of ``AbsTaskClassification`` in https://github.com/embeddings-benchmark/mteb, version 2: each
    experiment shuffles the training rows by ``numpy.random.RandomState(seed)``, anew in every experiment but starting
    from the order that the one before left, takes the first ``samples_per_label`` rows of each label (fewer where there
    are no more), and fits ``LogisticRegression(max_iter=max_iter, random_state=seed)``. Training texts that no
    experiment draws are never encoded.

    Measures, all means over the experiments: ``accuracy`` and its ``accuracy_std``, the macro-averaged ``f1``, and
    ``knn_accuracy`` of the 5 nearest neighbours among the same rows, the classifier of mteb's multilabel tasks. Every
    view of the embeddings fits its own classifiers. The metric's ``breakdown()`` has the accuracy, F1 and nearest
    neighbours' accuracy of each label.

    Args:
        train: Rows with ``text`` and ``label``, a string or a whole number.
        test: The same. A label that is not in ``train`` is an error, as it could never be predicted.
        samples_per_label: Rows of each label that an experiment draws.
        experiments: Number of experiments.
        seed: Seed of the draws and of logistic regression.
        main_metric: ``"accuracy"``, ``"f1"`` or ``"knn_accuracy"``.
        max_iter: Most iterations of logistic regression.
        role: Whose prompt the texts get: ``"query"`` or ``"document"``.

    Raises:
        ValueError: If a number is below 1, or there is no such measure or role; when loading, if a column is missing,
            there is a single label in ``train``, or one in ``test`` that ``train`` lacks.

    >>> from datasets import Dataset
    >>> class Animals(Source):
    ...     def load(self):
    ...         return Dataset.from_dict({"text": ["cat", "tiger", "pen", "ink"], "label": list("aabb")})
    >>> task = ClassificationTask(Animals(), Animals(), samples_per_label=1)
    >>> task.prepare()
    >>> sorted(task.parts()[0].texts)
    ['cat', 'ink', 'pen', 'tiger']
    """

    def __init__(
        self,
        train: Source,
        test: Source,
        *,
        samples_per_label: int = 8,
        experiments: int = 10,
        seed: int = 42,
        main_metric: str = "accuracy",
        max_iter: int = 100,
        role: Role = "document",
    ) -> None:
        measures = [measure for measure in CLASSIFICATION_MEASURES if not measure.endswith("_std")]
        super().__init__(main_metric, measures, role)
        for name, value in (
            ("samples_per_label", samples_per_label),
            ("experiments", experiments),
            ("max_iter", max_iter),
        ):
            if value < 1:
                raise ValueError(f"Got {name}={value}; need at least 1. Raise it.")
        self.train, self.test = train, test
        self.samples_per_label, self.experiments = samples_per_label, experiments
        self.seed, self.max_iter = seed, max_iter

    def load(self) -> tuple[list[str], FewShotClassification]:
        """Read the texts, and draw the rows of each experiment."""
        train, test = self.train.load(), self.test.load()
        texts, labels = text_column(train, "text", "train"), label_column(train, "train")
        test_texts, test_labels = text_column(test, "text", "test"), label_column(test, "test")
        _check_labels(labels, test_labels)
        draws = few_shot_draws(labels, self.samples_per_label, experiments=self.experiments, seed=self.seed)
        distinct = DistinctTexts(test_texts, *([texts[row] for row in rows] for rows in draws))
        of_test, *of_draws = (np.array(rows, dtype=np.int64) for rows in distinct.rows)
        experiments = [
            LabelledTexts(rows, np.array([labels[row] for row in drawn]))
            for rows, drawn in zip(of_draws, draws, strict=True)
        ]
        metric = FewShotClassification(
            experiments,
            LabelledTexts(of_test, np.array(test_labels)),
            max_iter=self.max_iter,
            seed=self.seed,
            text_count=len(distinct.texts),
        )
        return distinct.texts, metric


def few_shot_draws(
    labels: Sequence[str | int], samples_per_label: int, *, experiments: int, seed: int
) -> list[list[int]]:
    """Draw some rows of each label for each experiment, as mteb's ``AbsTaskClassification._undersample_data``.

    Args:
        labels: Label of each row.
        samples_per_label: Rows of each label to draw; all of a label that has fewer.
        experiments: Number of draws.
        seed: Seed of each shuffle; numpy's own state is not touched.

    Returns:
        Rows in the order in which they are drawn, for each experiment.

    >>> few_shot_draws(list("aabb"), 1, experiments=2, seed=42)
    [[1, 3], [3, 1]]
    """
    order = list(range(len(labels)))
    wanted = sum(min(count, samples_per_label) for count in Counter(labels).values())
    draws = []
    for _ in range(experiments):
        np.random.RandomState(seed).shuffle(order)  # the seed again and again, the order as it was left
        taken: Counter[str | int] = Counter()
        rows: list[int] = []
        for row in order:
            if taken[labels[row]] < samples_per_label:
                taken[labels[row]] += 1
                rows.append(row)
                if len(rows) == wanted:
                    break
        draws.append(rows)
    return draws


def _check_labels(train: Sequence[str | int], test: Sequence[str | int]) -> None:
    known = set(train)
    if len(known) < 2:
        raise ValueError(
            f"Got {len(train)} training texts with the single label {train[0]!r}; need at least two labels. "
            "Check the column of labels, or take more rows."
        )
    unknown = sorted(set(test) - known, key=str)
    if unknown:
        raise ValueError(
            f"Got test texts with {len(unknown)} labels that no training text has, such as {unknown[0]!r}; need every "
            f"test label among those of train, such as {train[0]!r}. Add training texts of it, drop these test texts, "
            "or write labels alike in both."
        )
