import itertools
import math
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp
from torch import Tensor
from torch import distributed as dist

from lightning_jv5.metrics import EmbeddingSums, Isotropy
from lightning_jv5.metrics.isotropy import covariance_spectrum, effective_rank, mean_cosine
from tests.references import slow_cosine

TEXTS = torch.randn(23, 6, generator=torch.Generator().manual_seed(0)) + torch.tensor([2.0, 0.4, 0, 0, -0.3, 0])


def slow_isotropy(embeddings: Tensor) -> tuple[float, float, float]:
    """Every pair, the covariance entry by entry, every sign."""
    vectors = [vector / math.sqrt(sum(x * x for x in vector)) for vector in embeddings.double()]
    pairs = list(itertools.permutations(vectors, 2))
    cosine = sum(float(slow_cosine(a, b)) for a, b in pairs) / len(pairs)
    dim, count = len(vectors[0]), len(vectors)
    mean = [sum(float(vector[i]) for vector in vectors) / count for i in range(dim)]
    covariance = torch.tensor(
        [
            [sum(float((v[i] - mean[i]) * (v[j] - mean[j])) for v in vectors) / count for j in range(dim)]
            for i in range(dim)
        ],
        dtype=torch.float64,
    )
    singular = torch.linalg.svdvals(covariance).tolist()  # as the paper says, not as eigenvalues
    shares = [value / sum(singular) for value in singular]
    rank = math.exp(-sum(share * math.log(share) for share in shares if share > 1e-12))
    ones = [sum(float(vector[i]) >= 0 for vector in vectors) / count for i in range(dim)]
    return cosine, rank, sum(0.4 <= share <= 0.6 for share in ones) / dim


def sums_of(batches: Sequence[Sequence[int]], texts: Tensor = TEXTS) -> EmbeddingSums:
    sums = EmbeddingSums(texts.shape[1], len(texts))
    for rows in batches:
        sums.update(texts[list(rows)], torch.tensor(list(rows), dtype=torch.int64))
    return sums


def values_of(found: Isotropy) -> list[float]:
    return [found.mean_cosine, found.effective_rank, found.balanced_bits]


@pytest.mark.parametrize("batches", [[range(23)], [range(5), [], range(5, 23)]])
def test_sums_match_the_slow_reference(batches: list[Sequence[int]]) -> None:
    found = sums_of(batches).compute()
    expected = slow_isotropy(TEXTS)
    assert values_of(found) == pytest.approx(expected, abs=1e-12)
    assert 0 < found.balanced_bits < 1
    assert found.texts == 23
    assert found.spectrum.sum() == pytest.approx(1 - (TEXTS / TEXTS.norm(dim=1, keepdim=True)).mean(0).norm() ** 2)


def test_rows_that_come_again_count_once() -> None:
    again = sums_of([range(10), range(5, 15), [20, 20, 15, 16, 17], [18, 19, 21, 22, 20]]).compute()
    assert values_of(again) == pytest.approx(slow_isotropy(TEXTS), abs=1e-12)


def test_sums_of_two_parts_add_up() -> None:
    first, second = sums_of([range(9)]), sums_of([range(9, 23)])
    first.merge_state(second)
    assert values_of(first.compute()) == pytest.approx(slow_isotropy(TEXTS), abs=1e-12)


def test_large_means_lose_no_digits() -> None:
    texts = torch.randn(50, 8, generator=torch.Generator().manual_seed(1)) * 1e-3 + 1.0
    found = sums_of([range(50)], texts).compute()
    assert found.effective_rank == pytest.approx(slow_isotropy(texts)[1], rel=1e-6)


def test_collapsed_embeddings_have_no_rank() -> None:
    found = sums_of([range(5)], torch.ones(5, 4)).compute()
    assert (found.mean_cosine, found.effective_rank, found.balanced_bits) == (pytest.approx(1), 0, 0)


def test_an_even_spread_has_the_best_values() -> None:
    found = sums_of([range(8)], torch.cat([torch.eye(4), -torch.eye(4)])).compute()
    assert found.effective_rank == pytest.approx(4)
    assert found.mean_cosine == pytest.approx(-1 / 7)  # of the 7 others one is opposite


def test_a_zero_counts_as_positive_as_in_the_binary_view() -> None:
    assert sums_of([range(2)], torch.tensor([[1.0, 0.0], [1.0, -1.0]])).compute().ones.tolist() == [1.0, 0.5]


def test_reset_forgets_and_half_precision_is_summed_in_float64() -> None:
    sums = EmbeddingSums(6, 23).bfloat16()
    sums.update(torch.ones(2, 6), torch.tensor([0, 1]))
    sums.reset()
    sums.update(TEXTS, torch.arange(23))
    assert sums.second_moment.dtype == torch.float64
    assert values_of(sums.compute()) == pytest.approx(slow_isotropy(TEXTS), abs=1e-12)


def _rank_of_two(rank: int, world: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world)
    try:
        sums = sums_of([[[0, 1, 2], range(3, 23)], [[]]][rank] if world == 2 else [range(rank, 23, world)])
        torch.save(values_of(sums.compute()), f"{folder}/{rank}.pt")
    finally:
        dist.destroy_process_group()


@pytest.mark.parametrize("world", [2, 3])  # of two, the second has no texts
def test_ranks_equal_one_process(world: int, tmp_path: Path) -> None:
    mp.spawn(_rank_of_two, args=(world, str(tmp_path)), nprocs=world)
    for rank in range(world):
        assert torch.load(tmp_path / f"{rank}.pt") == pytest.approx(slow_isotropy(TEXTS), abs=1e-12)


@pytest.mark.parametrize(
    ("embeddings", "rows", "message"),
    [
        (torch.ones(3), [0], r"Got embeddings \(3,\)"),
        (torch.ones(1, 5), [0], r"Got embeddings \(1, 5\) and rows \(1,\); need \(texts, 6\) and \(texts,\)"),
        (torch.ones(2, 6), [0], r"and rows \(1,\); need \(texts, 6\)"),
        (torch.ones(1, 6), [23], "Got rows 23 to 23; need 0 to 22"),
        (torch.ones(1, 6), [-1], "Got rows -1 to -1; need 0 to 22"),
    ],
)
def test_update_says_what_is_wrong(embeddings: Tensor, rows: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EmbeddingSums(6, 23).update(embeddings, torch.tensor(rows))


def test_compute_says_what_is_wrong() -> None:
    with pytest.raises(ValueError, match="Got 1 texts; need at least two to compare"):
        sums_of([[3]]).compute()
    with pytest.raises(ValueError, match="Got NaN or infinite embeddings"):
        sums_of([range(2)], torch.full((2, 4), torch.nan)).compute()
    for function in (mean_cosine, lambda total, count: covariance_spectrum(total, torch.eye(2), count)):
        with pytest.raises(ValueError, match="Got 1 texts; need at least two"):
            function(torch.ones(2), 1)


@pytest.mark.parametrize("sizes", [(0, 4), (4, 0)])
def test_sizes_below_one_are_refused(sizes: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="need at least 1 of both"):
        EmbeddingSums(*sizes)


def test_effective_rank_ignores_scale() -> None:
    spectrum = torch.tensor([3.0, 1.0, 0.0])
    assert effective_rank(spectrum * 1e-5) == pytest.approx(effective_rank(spectrum))
