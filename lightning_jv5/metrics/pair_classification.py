"""How well cosines tell pairs that belong together from others, as mteb measures it."""

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_jv5.metrics.correlation import pair_cosines
from lightning_jv5.metrics.groups import rows_by_group
from lightning_jv5.metrics.whole_set import WholeSetMetric

PAIR_MEASURES = ("ap", "accuracy", "f1")


def pair_measures(cosines: Tensor, positive: Tensor) -> dict[str, float]:
    """Measure how a threshold on the cosine separates two classes of pairs.

    As ``AbsTaskPairClassification`` in https://github.com/embeddings-benchmark/mteb, version 2: a threshold lies
    between two different cosines, so ties fall on the same side, and there is none below all of them or above all.

    Args:
        cosines: Cosine of each pair; shape ``(pairs,)``.
        positive: Whether the pair belongs together; bool, shape ``(pairs,)``.

    Returns:
        ``ap``, the average precision of scikit-learn's ``average_precision_score``: precision at each different cosine,
        weighted by the recall that it adds; ``accuracy`` and ``f1``, each at the threshold where it is highest, 0 where
        all cosines are equal. All in [0, 1].

    Raises:
        ValueError: If the shapes differ, or all pairs are of one class.

    >>> pair_measures(torch.tensor([0.9, 0.8, 0.1, 0.0]), torch.tensor([True, False, True, False]))
    {'ap': 0.8333333333333333, 'accuracy': 0.75, 'f1': 0.8}
    """
    if cosines.ndim != 1 or cosines.shape != positive.shape:
        raise ValueError(
            f"Got cosines {tuple(cosines.shape)} and classes {tuple(positive.shape)}; need (pairs,) of both. Pass one "
            "of each for every pair."
        )
    pairs, positives = len(cosines), int(positive.sum())
    if positives in (0, pairs):
        raise ValueError(
            f"Got {pairs} pairs of which {positives} are positive; need some of both classes. Check the labels, or "
            "take more rows."
        )
    cosines, order = cosines.double().sort(descending=True)
    last_of_ties = torch.cat([cosines[1:] != cosines[:-1], torch.tensor([True])])
    accepted = torch.arange(1, pairs + 1, dtype=torch.float64)[last_of_ties]
    hits = positive[order].double().cumsum(0)[last_of_ties]
    recall = hits / positives
    gained = recall.diff(prepend=torch.zeros(1, dtype=torch.float64))
    accuracy = (hits + (pairs - positives) - (accepted - hits)) / pairs
    f1 = 2 * hits / (accepted + positives)
    best = {"accuracy": accuracy[:-1], "f1": f1[:-1]}  # the last accepts all
    return {
        "ap": float((gained * hits / accepted).sum()),
        **{name: float(values.max()) if len(values) else 0.0 for name, values in best.items()},
    }


class PairClassification(WholeSetMetric):
    """:func:`pair_measures` of the cosines of pairs of texts.

    Args:
        pairs: The two texts of each pair, as rows among the texts.
        labels: Whether the texts of each pair belong together.
        text_count: Number of texts.
        groups: Group of each pair, None for one in none. Those of a single class are left out of :meth:`breakdown`.

    Raises:
        ValueError: If there are not as many labels (or groups) as pairs, or all labels are equal.

    >>> metric = PairClassification([(0, 1), (0, 2)], [True, False], text_count=3)
    >>> metric.update("document", torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]]), torch.arange(3))
    >>> metric.compute()
    {'ap': tensor(1.), 'accuracy': tensor(1.), 'f1': tensor(1.)}
    """

    def __init__(
        self,
        pairs: Sequence[tuple[int, int]],
        labels: Sequence[bool],
        *,
        text_count: int,
        groups: Sequence[str | None] | None = None,
    ) -> None:
        super().__init__(text_count, PAIR_MEASURES)
        if len(pairs) != len(labels) or len(set(labels)) < 2:
            raise ValueError(
                f"Got {len(pairs)} pairs and {len(labels)} labels, of which {sum(labels)} are positive; need as many "
                "of both, and some of both classes. Check the task's data."
            )
        self._left, self._right = torch.tensor(pairs, dtype=torch.int64).T
        self._positive = torch.tensor(labels, dtype=torch.bool)
        self._rows_of_group = {} if groups is None else rows_by_group(groups, len(pairs))

    def score(self, embeddings: Tensor) -> dict[str, float]:
        """Return ``ap``, ``accuracy`` and ``f1``, in [0, 1]."""
        query, document = self.query(embeddings), self.document(embeddings)
        cosines = pair_cosines(query[self._left], document[self._right])
        self.groups = {
            group: pair_measures(cosines[rows], self._positive[rows])
            for group, rows in self._rows_of_group.items()
            if 0 < self._positive[rows].sum() < len(rows)
        }
        return pair_measures(cosines, self._positive)
