"""The ranking measures again, slow and obvious: one query at a time, in plain Python."""

import math


def slow_ranking(scores: list[float], ids: list[str]) -> list[int]:
    """Rows by score descending, ties by id descending, as trec_eval sorts."""
    return sorted(range(len(ids)), key=lambda row: (scores[row], ids[row]), reverse=True)


def slow_measure(name: str, k: int, ranking: list[int], grades: dict[int, int]) -> float:
    gains = [max(0, grades.get(row, 0)) for row in ranking[:k]]
    ideal = sorted((max(0, grade) for grade in grades.values()), reverse=True)
    relevant = sum(grade > 0 for grade in ideal)
    if relevant == 0:
        return 0.0
    if name == "ndcg":
        return slow_dcg(gains) / slow_dcg(ideal[:k])
    if name == "recall":
        return sum(gain > 0 for gain in gains) / relevant
    if name == "p":
        return sum(gain > 0 for gain in gains) / k
    if name == "mrr":
        return max([1 / rank for rank, gain in enumerate(gains, start=1) if gain > 0], default=0.0)
    precisions = [sum(g > 0 for g in gains[:rank]) / rank for rank, gain in enumerate(gains, start=1) if gain > 0]
    return sum(precisions) / relevant


def slow_dcg(gains: list[int]) -> float:
    return sum(gain / math.log2(rank + 1) for rank, gain in enumerate(gains, start=1))
