"""How well cosines agree with scores that people gave to pairs: Pearson's and Spearman's correlation."""

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_jv5.metrics.groups import rows_by_group
from lightning_jv5.metrics.whole_set import WholeSetMetric

CORRELATIONS = ("spearman", "pearson")


def pearson(left: Tensor, right: Tensor) -> Tensor:
    """Linear correlation of two variables, computed in float64, as ``scipy.stats.pearsonr`` gives it.

    Args:
        left: Values of one variable; shape ``(rows,)``, at least two rows.
        right: Values of the other; shape ``(rows,)``.

    Returns:
        A float64 scalar in [-1, 1]; 0 where a variable is constant, as it then says nothing of the other (scipy: NaN).

    Raises:
        ValueError: If the shapes differ or there are fewer than two rows.

    >>> pearson(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([1.0, 2.0, 4.0]))
    tensor(1., dtype=torch.float64)
    """
    if left.ndim != 1 or left.shape != right.shape or len(left) < 2:
        raise ValueError(
            f"Got values {tuple(left.shape)} and {tuple(right.shape)}; need (rows,) of both, and at least two rows. "
            "Pass one value of each variable for every pair."
        )
    left, right = left.double(), right.double()
    if left.min() == left.max() or right.min() == right.max():  # the deviations from a rounded mean are not quite 0
        return left.new_zeros(())
    left, right = left - left.mean(), right - right.mean()
    correlation: Tensor = (left * right).sum() / (left.square().sum() * right.square().sum()).sqrt()
    return correlation.clamp(-1, 1)


def average_ranks(values: Tensor) -> Tensor:
    """Rank values from 1, those that tie at the mean of their ranks; float64, shape ``(rows,)`` as ``values``.

    >>> average_ranks(torch.tensor([0.5, 0.1, 0.5]))
    tensor([2.5000, 1.0000, 2.5000], dtype=torch.float64)
    """
    _, place, ties = torch.unique(values, return_inverse=True, return_counts=True)
    ranks: Tensor = ties.cumsum(0) - (ties.double() - 1) / 2
    return ranks[place]


def spearman(left: Tensor, right: Tensor) -> Tensor:
    """Correlation of the ranks of two variables, as ``scipy.stats.spearmanr`` gives it; otherwise as :func:`pearson`.

    >>> spearman(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([1.0, 20.0, 21.0]))
    tensor(1., dtype=torch.float64)
    """
    return pearson(average_ranks(left), average_ranks(right))


def pair_cosines(left: Tensor, right: Tensor) -> Tensor:
    """Cosine of each row of ``left`` with that of ``right``, shapes ``(rows, dim)``; float64, 0 for vectors of zeros.

    >>> pair_cosines(torch.tensor([[3.0, 4.0], [0.0, 0.0]]), torch.tensor([[4.0, 3.0], [1.0, 0.0]]))
    tensor([0.9600, 0.0000], dtype=torch.float64)
    """
    left, right = left.double(), right.double()
    squares = left.square().sum(1) * right.square().sum(1)
    # One root of the product: equal texts then have a cosine of exactly 1, and tie
    return (left * right).sum(1) / torch.where(squares > 0, squares.sqrt(), 1.0)


class CosineCorrelation(WholeSetMetric):
    """:func:`spearman` and :func:`pearson` between the cosines of pairs of texts and the scores of these pairs.

    Args:
        pairs: The two texts of each pair, as rows among the texts.
        scores: Score of each pair; higher is more similar.
        text_count: Number of texts.
        groups: Group of each pair, None for one in none. Those of fewer than two pairs, or whose scores are all equal,
            have no correlation and are left out of :meth:`breakdown`.

    Raises:
        ValueError: If there are not as many scores (or groups) as pairs, or fewer than two.

    >>> metric = CosineCorrelation([(0, 1), (0, 2)], [5.0, 1.0], text_count=3)
    >>> metric.update("document", torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]]), torch.arange(3))
    >>> metric.compute()
    {'spearman': tensor(1.), 'pearson': tensor(1.)}
    """

    def __init__(
        self,
        pairs: Sequence[tuple[int, int]],
        scores: Sequence[float],
        *,
        text_count: int,
        groups: Sequence[str | None] | None = None,
    ) -> None:
        super().__init__(text_count, CORRELATIONS)
        if len(pairs) != len(scores) or len(pairs) < 2:
            raise ValueError(
                f"Got {len(pairs)} pairs and {len(scores)} scores; need as many of both, and at least two. "
                "Check the task's data."
            )
        self._left, self._right = torch.tensor(pairs, dtype=torch.int64).T
        self._scores = torch.tensor(scores, dtype=torch.float64)
        self._rows_of_group = {} if groups is None else rows_by_group(groups, len(pairs))

    def score(self, embeddings: Tensor) -> dict[str, float]:
        """Return ``spearman`` and ``pearson``, in [-1, 1]."""
        query, document = self.query(embeddings), self.document(embeddings)
        cosines = pair_cosines(query[self._left], document[self._right])
        self.groups = {
            group: _correlations(cosines[rows], self._scores[rows])
            for group, rows in self._rows_of_group.items()
            if self._scores[rows].min() < self._scores[rows].max()
        }
        return _correlations(cosines, self._scores)


def _correlations(cosines: Tensor, scores: Tensor) -> dict[str, float]:
    return {"spearman": float(spearman(cosines, scores)), "pearson": float(pearson(cosines, scores))}
