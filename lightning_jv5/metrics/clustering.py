"""How well clusters of embeddings agree with labels: the V-measure of k-means, as mteb runs it."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from lightning_jv5.metrics.whole_set import WholeSetMetric

CLUSTERING_MEASURES = ("v_measure", "v_measure_std")


@dataclass(frozen=True)
class ClusteringRun:
    """One clustering.

    Attributes:
        rows: Which rows to cluster, perhaps repeatedly; int64, shape ``(rows,)``.
        seed: Seed of k-means.
    """

    rows: NDArray[np.int64]
    seed: int


def v_measure(
    embeddings: NDArray[np.float32], labels: NDArray[Any], *, clusters: int, batch_size: int, seed: int
) -> float:
    """Cluster by mini-batch k-means and compare with the labels: https://aclanthology.org/D07-1043, eq. 1 with beta 1.

    Args:
        embeddings: Clustered as they are, without normalising; shape ``(rows, dim)``.
        labels: Label of each row; shape ``(rows,)``.
        clusters: Number of clusters.
        batch_size: Rows in a step of k-means.
        seed: Seed of k-means; numpy's own state is not touched.

    Returns:
        Harmonic mean of homogeneity and completeness, in [0, 1].

    Raises:
        ValueError: If there are fewer rows than clusters.

    >>> embeddings = np.array([[0.0, 1.0], [1.0, 0.0], [0.0, 0.9], [0.9, 0.0]], dtype=np.float32)
    >>> v_measure(embeddings, np.array(["a", "b", "a", "b"]), clusters=2, batch_size=500, seed=42)
    1.0
    """
    from sklearn.cluster import MiniBatchKMeans
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.metrics import v_measure_score

    if len(embeddings) < clusters:
        raise ValueError(f"Got {len(embeddings)} rows for {clusters} clusters; need at least as many. Add rows.")
    kmeans = MiniBatchKMeans(n_clusters=clusters, batch_size=batch_size, n_init="auto", random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # few different vectors, as those of a few bits are
        assigned = kmeans.fit_predict(embeddings)
    return float(v_measure_score(labels, assigned))


class ClusteringVMeasure(WholeSetMetric):
    """Mean :func:`v_measure` over some clusterings, and its standard deviation where there are several.

    Args:
        rows: Text of each row; the same text may be in several rows.
        labels: Label of each row.
        runs: The clusterings.
        clusters: Number of clusters.
        batch_size: Rows in a step of k-means.
        text_count: Number of texts.

    Raises:
        ValueError: If there are no runs, or not as many labels as rows.

    >>> import torch
    >>> runs = [ClusteringRun(np.arange(4), seed=42)]
    >>> metric = ClusteringVMeasure([0, 1, 0, 1], list("abab"), runs, clusters=2, batch_size=500, text_count=2)
    >>> metric.update("document", torch.eye(2), torch.arange(2))
    >>> metric.compute()
    {'v_measure': tensor(1.)}
    """

    def __init__(
        self,
        rows: Sequence[int],
        labels: Sequence[str | int],
        runs: Sequence[ClusteringRun],
        *,
        clusters: int,
        batch_size: int,
        text_count: int,
    ) -> None:
        super().__init__(text_count, CLUSTERING_MEASURES[: 1 + (len(runs) > 1)])
        if not runs or len(rows) != len(labels):
            raise ValueError(
                f"Got {len(runs)} runs, {len(rows)} rows and {len(labels)} labels; need at least one run, and a label "
                "for each row. Check the task's data."
            )
        self._rows, self._runs = np.asarray(rows, dtype=np.int64), list(runs)
        self._labels = np.unique(np.asarray(labels), return_inverse=True)[1]
        self._clusters, self._batch_size = clusters, batch_size

    def score(self, embeddings: Tensor) -> dict[str, float]:
        """Return ``v_measure``, in [0, 1], and ``v_measure_std`` of several runs."""
        vectors = np.asarray(self.document(embeddings))
        values = [
            v_measure(
                vectors[self._rows[run.rows]],
                self._labels[run.rows],
                clusters=self._clusters,
                batch_size=self._batch_size,
                seed=run.seed,
            )
            for run in self._runs
        ]
        return dict(zip(self.measures, (float(np.mean(values)), float(np.std(values))), strict=False))
