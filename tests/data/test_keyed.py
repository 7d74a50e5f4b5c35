import itertools
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_jv5.data.keyed import key, keys_at, permuted, uniform_at


@given(size=st.integers(1, 300), base=st.integers(0, 2**64 - 1))
@settings(max_examples=60, deadline=None)
def test_a_permutation_takes_every_number_once(size: int, base: int) -> None:
    assert sorted(permuted(range(size), size, base).tolist()) == list(range(size))


@pytest.mark.parametrize("size", [10**9, 2**40 + 1, 2**62])
def test_large_permutations_have_no_repetition_in_a_part(size: int) -> None:
    part = permuted(np.arange(size - 20_000, size), size, key("large"))
    assert len(set(part.tolist())) == 20_000
    assert 0 <= part.min() <= part.max() < size


def test_many_permutations_at_once_are_those_of_each_alone() -> None:
    positions, sizes, bases = [3, 0, 6, 99], [4, 1, 7, 1000], [1, 2, 3, 2**63]
    together = permuted(positions, sizes, bases)
    assert together.tolist() == [
        int(permuted([position], size, base)[0]) for position, size, base in zip(positions, sizes, bases, strict=True)
    ]
    assert permuted(np.arange(6).reshape(2, 3), 6, 5).shape == (2, 3)


@pytest.mark.parametrize("size", [3, 12, 100])
def test_every_number_comes_to_every_place_equally_often(size: int) -> None:
    trials = 4000
    bases = keys_at(key("places", size), range(trials))
    places = permuted(np.arange(size), size, bases[:, None])  # (trials, size)
    for place in (0, size // 2, size - 1):
        counts = np.bincount(places[:, place], minlength=size)
        chi_squared = ((counts - trials / size) ** 2 / (trials / size)).sum()
        assert chi_squared < size - 1 + 5 * np.sqrt(2 * (size - 1))  # five standard deviations


def test_neighbours_in_a_permutation_are_not_neighbours_before() -> None:
    order = permuted(np.arange(10_000), 10_000, key("steps"))
    assert abs(np.corrcoef(order[:-1], order[1:])[0, 1]) < 0.05
    assert (np.abs(np.diff(order)) == 1).mean() < 0.001


def test_small_sets_see_most_of_their_orders() -> None:
    orders = Counter(tuple(permuted(range(4), 4, base).tolist()) for base in keys_at(key("orders"), range(5000)))
    assert len(orders) == 24
    assert min(orders.values()) > 50


def test_uniform_numbers_are_uniform_and_unrelated() -> None:
    numbers = uniform_at(key("u"), range(100_000))
    assert 0 <= numbers.min() < numbers.max() < 1
    counts = np.histogram(numbers, bins=50, range=(0, 1))[0]
    assert ((counts - 2000) ** 2 / 2000).sum() < 49 + 5 * np.sqrt(98)
    assert abs(np.corrcoef(numbers[:-1], numbers[1:])[0, 1]) < 0.02


def test_keys_differ_between_parts_and_are_the_same_in_every_process() -> None:
    parts: list[tuple[int | str, ...]] = [(1, 23), (12, 3), ("1", 23), (1,), ()]
    assert all(key(*a) != key(*b) for a, b in itertools.combinations(parts, 2))
    code = "from lightning_jv5.data.keyed import key, permuted; print(key('a', 1), permuted([5], 9, 7).tolist())"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == f"{key('a', 1)} {permuted([5], 9, 7).tolist()}"


def test_a_position_beyond_the_size_is_refused() -> None:
    with pytest.raises(ValueError, match="Got positions from 2 to 5 in permutations of 5 or more"):
        permuted([2, 5], 5, 0)
