"""nDCG, recall, precision, reciprocal rank and average precision of rankings, cut at k, as trec_eval defines them."""

import re
from collections.abc import Callable

import torch
from torch import Tensor

RankingMeasure = Callable[[Tensor, Tensor, int], Tensor]


def ndcg(gains: Tensor, ideal_gains: Tensor, k: int) -> Tensor:
    """Discounted cumulative gain of the first k over that of the best possible ranking; gains are linear.

    Args:
        gains: Grade of the document at each rank, at least 0; shape ``(queries, ranks)``.
        ideal_gains: Grades of all judged documents, retrieved or not, highest first and padded with zeros; shape
            ``(queries, judged)``.
        k: Ranks that count.

    Returns:
        One value in [0, 1] per query; 0 where no document is relevant.

    >>> ndcg(torch.tensor([[0.0, 1.0]]), torch.tensor([[1.0, 0.0]]), k=10)
    tensor([0.6309])
    """
    best = _discounted(ideal_gains[:, :k])
    return torch.where(best > 0, _discounted(gains[:, :k]) / best.clamp(min=torch.finfo(best.dtype).tiny), 0.0)


def recall(gains: Tensor, ideal_gains: Tensor, k: int) -> Tensor:
    """Share of a query's relevant documents (grade above 0) among the first k; arguments as in :func:`ndcg`.

    >>> recall(torch.tensor([[0.0, 1.0]]), torch.tensor([[2.0, 1.0]]), k=10)
    tensor([0.5000])
    """
    found = (gains[:, :k] > 0).sum(1)
    return found / _relevant(ideal_gains).to(gains.dtype)


def precision(gains: Tensor, ideal_gains: Tensor, k: int) -> Tensor:
    """Share of the first k that is relevant, over k also where fewer were found; arguments as in :func:`ndcg`.

    >>> precision(torch.tensor([[0.0, 1.0]]), torch.tensor([[2.0, 1.0]]), k=10)
    tensor([0.1000])
    """
    return (gains[:, :k] > 0).sum(1).to(gains.dtype) / k


def reciprocal_rank(gains: Tensor, ideal_gains: Tensor, k: int) -> Tensor:
    """One over the rank of the first relevant document, 0 if it is below rank k; arguments as in :func:`ndcg`.

    >>> reciprocal_rank(torch.tensor([[0.0, 1.0]]), torch.tensor([[1.0]]), k=10)
    tensor([0.5000])
    """
    relevant = (gains[:, :k] > 0).to(gains.dtype)
    return (relevant / _ranks(relevant)).amax(1)


def average_precision(gains: Tensor, ideal_gains: Tensor, k: int) -> Tensor:
    """Precision at each relevant document of the first k, over all relevant documents; arguments as in :func:`ndcg`.

    >>> average_precision(torch.tensor([[0.0, 1.0]]), torch.tensor([[1.0]]), k=10)
    tensor([0.5000])
    """
    relevant = (gains[:, :k] > 0).to(gains.dtype)
    precisions = relevant.cumsum(1) / _ranks(relevant)
    return (precisions * relevant).sum(1) / _relevant(ideal_gains)


RANKING_MEASURES: dict[str, RankingMeasure] = {
    "ndcg": ndcg,
    "recall": recall,
    "p": precision,
    "mrr": reciprocal_rank,
    "map": average_precision,
}


def parse_measure(name: str) -> tuple[RankingMeasure, int]:
    """Split ``"ndcg@10"`` into the function and its cut-off.

    Raises:
        ValueError: If there is no such measure.

    >>> measure, k = parse_measure("recall@100")
    >>> measure.__name__, k
    ('recall', 100)
    """
    match = re.fullmatch(r"([a-z]+)@([1-9][0-9]*)", name)
    if match is None or match[1] not in RANKING_MEASURES:
        raise ValueError(
            f"Got measure {name!r}; need one of {', '.join(RANKING_MEASURES)}, then '@' and how many ranks count. "
            "Write for instance 'ndcg@10'."
        )
    return RANKING_MEASURES[match[1]], int(match[2])


def _ranks(values: Tensor) -> Tensor:
    return torch.arange(1, values.shape[1] + 1, device=values.device, dtype=values.dtype)


def _discounted(gains: Tensor) -> Tensor:
    return (gains / (_ranks(gains) + 1).log2()).sum(1)


def _relevant(ideal_gains: Tensor) -> Tensor:
    """Number of relevant documents per query; at least 1, as a query without any scores 0 and not 0/0."""
    return (ideal_gains > 0).sum(1).clamp(min=1)
