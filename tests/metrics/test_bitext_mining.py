import pytest
import torch
from sklearn.metrics import accuracy_score, f1_score, precision_score, recall_score
from torch import Tensor

from lightning_jv5.metrics import BitextMining, View, mining_measures
from lightning_jv5.metrics import bitext_mining as module


def weighted(found: list[int]) -> dict[str, float]:
    """What mteb computes, with scikit-learn."""
    rows, settings = list(range(len(found))), {"zero_division": 0, "average": "weighted"}
    return {
        "f1": f1_score(rows, found, **settings),
        "accuracy": accuracy_score(rows, found),
        "precision": precision_score(rows, found, **settings),
        "recall": recall_score(rows, found, **settings),
    }


@pytest.mark.parametrize("seed", range(10))
def test_measures_are_scikit_learns_weighted_averages(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    found = torch.where(torch.rand(30, generator=generator) < 0.5, torch.arange(30), 0)
    found = torch.where(torch.rand(30, generator=generator) < 0.2, torch.randint(30, (30,), generator=generator), found)
    assert mining_measures(found) == pytest.approx(weighted(found.tolist()), abs=1e-12)


def embeddings_of(rows: int, dim: int = 12) -> Tensor:
    """Sources, then noisy copies of them as targets; of unit length."""
    generator = torch.Generator().manual_seed(3)
    sources, noise = (torch.randn(rows, dim, generator=generator) for _ in range(2))
    return torch.nn.functional.normalize(torch.cat([sources, sources + 0.9 * noise]), dim=1)


def metric_of(embeddings: Tensor, view: View | None = None, **settings: list[str | None]) -> BitextMining:
    rows = len(embeddings) // 2
    metric = BitextMining([(row, rows + row) for row in range(rows)], text_count=2 * rows, **settings)
    metric.view = view
    metric.update("document", embeddings, torch.arange(2 * rows))
    return metric


def slow_found(sources: Tensor, targets: Tensor) -> list[int]:
    """The highest cosine in float64, of all pairs at once; of those that tie the first."""
    cosines = torch.nn.functional.cosine_similarity(sources[:, None].double(), targets[None].double(), dim=2)
    return [max(range(len(row)), key=lambda place: (round(row[place], 9), -place)) for row in cosines.tolist()]


@pytest.mark.parametrize("tile", [4096, 7])
@pytest.mark.parametrize("view", [View(), View(5), View(precision="binary"), View(6, "asymmetric"), View(8, "int8")])
def test_the_nearest_of_all_targets_is_found_in_any_tiles(
    view: View, tile: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_TARGETS_PER_TILE", tile)
    embeddings = embeddings_of(50)
    cut = view.cut(embeddings)
    found = slow_found(view.query(cut[:50]), view.document(cut[50:]))
    values = {name: value.item() for name, value in metric_of(embeddings, view).compute().items()}
    assert values == pytest.approx(weighted(found), abs=1e-6)
    assert 0.1 < values["f1"] < 1


@pytest.mark.parametrize("few", [3, 100])
def test_rescoring_chooses_by_floats_among_what_bits_find(few: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RESCORED_TARGETS", few)
    monkeypatch.setattr(module, "_RESCORED_SOURCES", 7)
    embeddings = embeddings_of(50)
    signs = torch.where(embeddings >= 0, 1.0, -1.0)
    found = []
    for source in range(50):
        distances = (signs[source] != signs[50:]).sum(1).tolist()
        nearest = sorted(range(50), key=lambda target: (distances[target], target))[:few]
        cosines = (embeddings[50:].double() @ embeddings[source].double()).tolist()
        found.append(max(nearest, key=cosines.__getitem__))
    values = metric_of(embeddings, View(precision="rescored")).compute()
    assert {name: value.item() for name, value in values.items()} == pytest.approx(weighted(found), abs=1e-6)
    whole = metric_of(embeddings, View()).compute()
    assert (values == whole) == (few == 100)


def test_of_equal_targets_the_first_is_found() -> None:
    metric = BitextMining([(0, 2), (1, 2), (1, 0)], text_count=3)
    metric.update("document", torch.eye(3)[[0, 1, 1]], torch.arange(3))
    assert metric.compute()["accuracy"].item() == 0.0  # all right targets of row 1 come after an equal one of row 0
    metric = BitextMining([(1, 2), (1, 2)], text_count=3)
    metric.update("document", torch.eye(3)[[0, 1, 1]], torch.arange(3))
    assert metric.compute()["accuracy"].item() == 0.5


def test_a_group_searches_its_own_targets() -> None:
    embeddings = embeddings_of(30)
    groups = [[None, "de-en", "fr-en"][row % 3] for row in range(30)]
    metric = metric_of(embeddings, View(), groups=groups)
    assert metric.compute() == metric_of(embeddings, View()).compute()
    found = metric.breakdown()
    assert list(found) == ["de-en", "fr-en"]
    for group, values in found.items():
        rows = torch.tensor([row for row, name in enumerate(groups) if name == group])
        alone = metric_of(torch.cat([embeddings[rows], embeddings[30 + rows]]), View()).compute()
        assert values == pytest.approx({name: value.item() for name, value in alone.items()}, abs=1e-6)


def test_no_pairs_are_refused() -> None:
    with pytest.raises(ValueError, match="Got no pairs; need at least one"):
        BitextMining([], text_count=0)
