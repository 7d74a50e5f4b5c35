"""Clustering: do embeddings fall into the groups that labels say?"""

import random
from collections.abc import Sequence

import numpy as np

from lightning_jv5.data.source import Source
from lightning_jv5.metrics.clustering import CLUSTERING_MEASURES, ClusteringRun, ClusteringVMeasure
from lightning_jv5.tasks.columns import label_column, text_column
from lightning_jv5.tasks.whole_set import DistinctTexts, Role, WholeSetTask


class ClusteringTask(WholeSetTask):
    """Cluster the texts by mini-batch k-means and compare with their labels, as mteb does: the V-measure, in [0, 1].

    The protocols are those of https://github.com/embeddings-benchmark/mteb, version 2. By default all texts are
    clustered once, as ``AbsTaskClusteringLegacy`` clusters each of its sets. With ``batch_size=512, repeats=10,
    bootstrap=16384``, and ``max_texts`` in place of mteb's fraction, it is the newer ``AbsTaskClustering`` (once
    ``AbsTaskClusteringFast``): ten clusterings of 16,384 rows each, drawn with replacement by ``random.Random(seed)``,
    k-means being seeded alike. The vectors are clustered as the view gives them.

    Measures are ``v_measure``, the mean, and ``v_measure_std`` where ``repeats`` is above 1. Every view of the
    embeddings is clustered anew: with many, prefer the default.

    Args:
        texts: Rows with ``text`` and ``label``, a string or a whole number.
        main_metric: ``"v_measure"``.
        clusters: Number of clusters; by default that of different labels.
        batch_size: Rows in a step of k-means.
        repeats: Number of clusterings. Without ``bootstrap`` they differ in the seed of k-means: ``seed``,
            ``seed + 1``, ...
        bootstrap: Rows drawn for each clustering, with replacement; by default every row is taken once.
        seed: Seed of all draws and of k-means.
        max_texts: Most rows; a random sample of that many, in random order, is used in place of all.
        role: Whose prompt the texts get: ``"query"`` or ``"document"``.

    Raises:
        ValueError: If a number is too small, or there is no such measure or role; when loading, if a column is missing,
            there is a single label, or there are fewer rows than clusters.

    >>> from datasets import Dataset
    >>> class Animals(Source):
    ...     def load(self):
    ...         return Dataset.from_dict({"text": ["cat", "tiger", "pen", "ink"], "label": list("aabb")})
    >>> task = ClusteringTask(Animals(), max_texts=3)
    >>> task.prepare()
    >>> len(task.parts()[0].texts)
    3
    """

    def __init__(
        self,
        texts: Source,
        *,
        main_metric: str = "v_measure",
        clusters: int | None = None,
        batch_size: int = 500,
        repeats: int = 1,
        bootstrap: int | None = None,
        seed: int = 42,
        max_texts: int | None = None,
        role: Role = "document",
    ) -> None:
        super().__init__(main_metric, CLUSTERING_MEASURES[:1], role)
        for name, value, least in (
            ("clusters", clusters, 2),
            ("batch_size", batch_size, 1),
            ("repeats", repeats, 1),
            ("bootstrap", bootstrap, 2),
            ("max_texts", max_texts, 2),
        ):
            if value is not None and value < least:
                raise ValueError(f"Got {name}={value}; need at least {least}. Raise it.")
        self.texts, self.clusters, self.batch_size = texts, clusters, batch_size
        self.repeats, self.bootstrap, self.seed, self.max_texts = repeats, bootstrap, seed, max_texts

    def load(self) -> tuple[list[str], ClusteringVMeasure]:
        """Read the texts, and draw the rows of each clustering."""
        rows = self.texts.load()
        texts, labels = text_column(rows, "text", "texts"), label_column(rows, "texts")
        random_state = random.Random(self.seed)  # one for both draws, as in mteb
        if self.max_texts is not None:
            drawn = random_state.sample(range(len(texts)), k=min(self.max_texts, len(texts)))
            texts, labels = [texts[row] for row in drawn], [labels[row] for row in drawn]
        clusters = self._checked_clusters(labels)
        distinct = DistinctTexts(texts)
        self._labels = distinct.labels(labels)
        metric = ClusteringVMeasure(
            distinct.rows[0],
            labels,
            self._runs(len(texts), random_state),
            clusters=clusters,
            batch_size=self.batch_size,
            text_count=len(distinct.texts),
        )
        return distinct.texts, metric

    def _checked_clusters(self, labels: Sequence[str | int]) -> int:
        different = len(set(labels))
        if different < 2:
            raise ValueError(
                f"Got {len(labels)} texts with the single label {labels[0]!r}; need at least two labels. "
                "Check the column of labels, or take more rows."
            )
        clusters = different if self.clusters is None else self.clusters
        clustered = len(labels) if self.bootstrap is None else self.bootstrap
        if clustered < clusters:
            raise ValueError(
                f"Got {clustered} rows to put into {clusters} clusters; need at least as many. Raise bootstrap or "
                "max_texts where they are set, take more rows, or lower clusters."
            )
        return clusters

    def _runs(self, rows: int, random_state: random.Random) -> list[ClusteringRun]:
        if self.bootstrap is None:
            return [ClusteringRun(np.arange(rows), self.seed + repeat) for repeat in range(self.repeats)]
        drawn = (random_state.choices(range(rows), k=self.bootstrap) for _ in range(self.repeats))
        return [ClusteringRun(np.array(places, dtype=np.int64), self.seed) for places in drawn]
