"""How evenly embeddings fill their space: what makes cosines tell texts apart, and sign bits worth keeping."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import Metric

BALANCED = (0.4, 0.6)
"""Between which shares of positive signs a bit counts as balanced."""

_ROUNDING = 1e-12  # eigenvalues of unit vectors' second moments add up to 1


def mean_cosine(total: Tensor, count: int) -> float:
    """Mean cosine over all ordered pairs of different texts: ``(||sum||² - n) / (n (n - 1))``, in [-1, 1].

    Pairs need not be formed: the squared length of the sum is the sum of all dot products, ``n`` of them of a text with
    itself. It is the anisotropy of https://arxiv.org/abs/1909.00512, over all pairs instead of a sample of them.

    Args:
        total: Sum of the unit-length embeddings; shape ``(dim,)``.
        count: Number of texts.

    Raises:
        ValueError: If there are fewer than two texts.

    >>> mean_cosine(torch.eye(2).sum(0), 2)
    0.0
    """
    _check_count(count)
    return (float(total.double().square().sum()) - count) / (count * (count - 1))


def covariance_spectrum(total: Tensor, second_moment: Tensor, count: int) -> Tensor:
    """Eigenvalues of the covariance of unit-length embeddings, descending: float64, shape ``(dim,)``.

    Args:
        total: Sum of the embeddings; shape ``(dim,)``.
        second_moment: Sum of their outer products with themselves; shape ``(dim, dim)``.
        count: Number of texts.

    Raises:
        ValueError: If there are fewer than two texts.

    >>> covariance_spectrum(torch.eye(2).sum(0), torch.eye(2), 2)
    tensor([0.5000, 0.0000], dtype=torch.float64)
    """
    _check_count(count)
    mean = total.double() / count
    covariance = second_moment.double() / count - torch.outer(mean, mean)
    eigenvalues = torch.linalg.eigvalsh(covariance).flip(0)
    return torch.where(eigenvalues > _ROUNDING, eigenvalues, 0.0)


def effective_rank(spectrum: Tensor) -> float:
    """Exponential of the entropy of the normalised spectrum: https://ieeexplore.ieee.org/document/7098875.

    Roy and Vetterli (2007) take the singular values of a matrix. Here that matrix is the covariance, whose singular
    values are its eigenvalues: the direction that all texts share, which :func:`mean_cosine` tells, is left out.

    Args:
        spectrum: Singular values, none negative; shape ``(dim,)``.

    Returns:
        Between 1 (all on a line) and ``dim`` (alike in every direction); 0 where all values are 0.

    >>> effective_rank(torch.tensor([2.0, 2.0, 0.0]))
    2.0
    """
    shares = spectrum[spectrum > 0].double()
    if not len(shares):
        return 0.0
    shares = shares / shares.sum()
    return float(torch.exp(-(shares * shares.log()).sum()))


class Isotropy(NamedTuple):
    """What the sums over a set of texts tell.

    Attributes:
        mean_cosine: See :func:`mean_cosine`; 0 is even.
        effective_rank: See :func:`effective_rank`; the number of coordinates is even.
        balanced_bits: Share of coordinates that are positive (or zero, as sign bits count it) in 40% to 60% of the
            texts, in [0, 1].
        spectrum: See :func:`covariance_spectrum`.
        ones: Share of texts in which a coordinate is positive; float64, shape ``(dim,)``.
        texts: How many they are.
    """

    mean_cosine: float
    effective_rank: float
    balanced_bits: float
    spectrum: Tensor
    ones: Tensor
    texts: int


class EmbeddingSums(Metric):
    """Sums over embeddings from which their isotropy follows exactly, in any split over batches and ranks.

    Float64, on the device where the metric is: on the CPU, unless it is moved. They take ``8 * dim**2`` bytes.
    Embeddings are normalised first. A row that arrives again on the same rank (a sampler that pads, say) counts once;
    between ranks no row may be in two shares, as sums cannot tell.

    Args:
        dim: Coordinates of an embedding.
        text_count: Number of rows that there are.

    Raises:
        ValueError: If either is below 1.

    >>> sums = EmbeddingSums(2, text_count=2)
    >>> sums.update(torch.tensor([[3.0, 0.0], [0.0, 0.5]]), torch.tensor([0, 1]))
    >>> values = sums.compute()
    >>> values.mean_cosine, values.effective_rank, values.balanced_bits
    (0.0, 1.0, 0.0)
    """

    full_state_update = False
    total: Tensor
    second_moment: Tensor
    positives: Tensor
    count: Tensor

    def __init__(self, dim: int, text_count: int) -> None:
        super().__init__()
        if dim < 1 or text_count < 1:
            raise ValueError(f"Got dim {dim} and text_count {text_count}; need at least 1 of both. Raise them.")
        self.dim, self.text_count = dim, text_count
        self.add_state("total", torch.zeros(dim, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("second_moment", torch.zeros(dim, dim, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("positives", torch.zeros(dim, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("count", torch.tensor(0), dist_reduce_fx="sum")
        self._seen = torch.zeros(text_count, dtype=torch.bool)  # on the CPU for good: rows are few and come from there

    def update(self, embeddings: Tensor, rows: Tensor) -> None:
        """Add embeddings, shape ``(texts, dim)``, of rows, int64, shape ``(texts,)``; those seen are passed over.

        Raises:
            ValueError: If the shapes differ or there is no such row.
        """
        if embeddings.ndim != 2 or embeddings.shape[1] != self.dim or rows.shape != embeddings.shape[:1]:
            raise ValueError(
                f"Got embeddings {tuple(embeddings.shape)} and rows {tuple(rows.shape)}; need (texts, {self.dim}) and "
                "(texts,). Pass whole embeddings, and the row of each text."
            )
        rows = rows.cpu()
        if len(rows) and (rows.min() < 0 or rows.max() >= self.text_count):
            raise ValueError(
                f"Got rows {rows.min()} to {rows.max()}; need 0 to {self.text_count - 1}. "
                "Pass positions among the task's texts."
            )
        ordered, order = rows.sort(stable=True)
        first = order[F.pad(ordered[1:] != ordered[:-1], (1, 0), value=True)] if len(rows) else order
        new = first[~self._seen[rows[first]]]
        self._seen[rows] = True
        vectors = F.normalize(embeddings.detach().to(self.total.device)[new].double(), dim=1)
        self.total += vectors.sum(0)
        self.second_moment += vectors.T @ vectors
        self.positives += (vectors >= 0).sum(0)
        self.count += len(vectors)

    def compute(self) -> Isotropy:
        """Return the isotropy of all texts. Merges over ranks, so every rank calls it.

        Raises:
            ValueError: If there are fewer than two texts, or an embedding was not finite.
        """
        total, second_moment, count = self.total.cpu(), self.second_moment.cpu(), int(self.count)
        if not total.isfinite().all():
            raise ValueError(
                "Got NaN or infinite embeddings; need finite numbers. Check the model's weights (did training "
                "diverge?) and its precision."
            )
        spectrum = covariance_spectrum(total, second_moment, count)
        ones = self.positives.cpu().double() / count
        low, high = BALANCED
        return Isotropy(
            mean_cosine(total, count),
            effective_rank(spectrum),
            float(((ones >= low) & (ones <= high)).double().mean()),
            spectrum,
            ones,
            count,
        )

    def reset(self) -> None:
        """Forget all texts."""
        super().reset()
        self._seen = torch.zeros_like(self._seen)


def _check_count(count: int) -> None:
    if count < 2:
        raise ValueError(f"Got {count} texts; need at least two to compare. Give the task more texts.")
