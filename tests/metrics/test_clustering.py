import math
from collections import Counter

import numpy as np
import pytest
import torch
from sklearn.cluster import MiniBatchKMeans
from sklearn.metrics import v_measure_score

from lightning_jv5.metrics import ClusteringVMeasure
from lightning_jv5.metrics.clustering import ClusteringRun, v_measure


def blobs(seed: int, rows: int = 120, dim: int = 5) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 4, rows)
    centres = generator.normal(size=(4, dim))
    return (centres[labels] + generator.normal(size=(rows, dim))).astype(np.float32), labels


def slow_v_measure(labels: list[int], clusters: list[int]) -> float:
    """From entropies, as the paper's equations say."""

    def entropy(values: list[object]) -> float:
        return -sum(count / len(values) * math.log(count / len(values)) for count in Counter(values).values())

    joint = entropy(list(zip(labels, clusters, strict=True)))
    homogeneity = 1 - (joint - entropy(list(clusters))) / entropy(list(labels))
    completeness = 1 - (joint - entropy(list(labels))) / entropy(list(clusters))
    return 2 * homogeneity * completeness / (homogeneity + completeness)


@pytest.mark.parametrize("seed", range(3))
def test_v_measure_is_that_of_mtebs_clustering(seed: int) -> None:
    embeddings, labels = blobs(seed)
    model = MiniBatchKMeans(n_clusters=4, batch_size=500, n_init="auto", compute_labels=True, random_state=42)
    model.fit(embeddings)
    found = v_measure(embeddings, labels, clusters=4, batch_size=500, seed=42)
    assert found == v_measure_score(labels, model.labels_)
    assert found == pytest.approx(slow_v_measure(labels.tolist(), model.labels_.tolist()), abs=1e-9)
    assert 0.1 < found < 0.99


def test_v_measure_is_that_of_mtebs_newer_clustering_too() -> None:
    embeddings, labels = blobs(4)
    model = MiniBatchKMeans(n_clusters=4, batch_size=512, init="k-means++", n_init=1, random_state=42)
    for _ in range(2):  # mteb fits the same object again
        expected = v_measure_score(labels, model.fit_predict(embeddings))
        assert v_measure(embeddings, labels, clusters=4, batch_size=512, seed=42) == expected


def test_the_metric_averages_its_runs_over_rows_that_share_texts() -> None:
    embeddings, labels = blobs(5, rows=60)
    texts = np.random.default_rng(0).integers(0, 60, 90)
    names = [f"topic {label}" for label in labels[texts]]
    runs = [ClusteringRun(np.random.default_rng(seed).integers(0, 90, 70), seed) for seed in range(3)]
    metric = ClusteringVMeasure(texts.tolist(), names, runs, clusters=4, batch_size=50, text_count=60)
    metric.update("document", torch.from_numpy(embeddings), torch.arange(60))
    expected = [
        v_measure(embeddings[texts][run.rows], np.array(names)[run.rows], clusters=4, batch_size=50, seed=run.seed)
        for run in runs
    ]
    computed = {name: value.item() for name, value in metric.compute().items()}
    assert computed == pytest.approx({"v_measure": np.mean(expected), "v_measure_std": np.std(expected)}, abs=1e-6)
    assert computed["v_measure_std"] > 0


def test_the_same_vectors_can_be_clustered_and_warn_of_nothing(recwarn: pytest.WarningsRecorder) -> None:
    embeddings, labels = np.ones((20, 4), dtype=np.float32), np.arange(20) % 3
    assert v_measure(embeddings, labels, clusters=3, batch_size=500, seed=42) == pytest.approx(0.0, abs=1e-9)
    assert [str(warning.message) for warning in recwarn] == []


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="Got 2 rows for 3 clusters; need at least as many"):
        v_measure(np.ones((2, 2), dtype=np.float32), np.arange(2), clusters=3, batch_size=500, seed=42)
    with pytest.raises(ValueError, match="Got 0 runs, 2 rows and 1 labels"):
        ClusteringVMeasure([0, 1], ["a"], [], clusters=2, batch_size=500, text_count=2)
