import itertools
import time
from collections.abc import Callable, Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_jv5.models.chunks import CHUNK_OVERHEAD_TOKENS, padded_tokens, plan_chunks, plan_packed_chunks


def partitions(items: list[int]) -> Iterator[list[list[int]]]:
    if not items:
        yield []
        return
    first, *rest = items
    for smaller in partitions(rest):
        yield [[first], *smaller]
        for position, chunk in enumerate(smaller):
            yield [*smaller[:position], [first, *chunk], *smaller[position + 1 :]]


def least_cost(lengths: list[int], max_tokens: int) -> int:
    """Try every partition."""
    costs = []
    for partition in partitions(list(range(len(lengths)))):
        padded = [len(chunk) * max(lengths[index] for index in chunk) for chunk in partition]
        if all(tokens <= max_tokens or len(chunk) == 1 for tokens, chunk in zip(padded, partition, strict=True)):
            costs.append(sum(padded) + CHUNK_OVERHEAD_TOKENS * len(partition))
    return min(costs)


@given(st.lists(st.integers(1, 600), max_size=80), st.integers(1, 3000))
@settings(deadline=None)
def test_chunks_are_a_partition_within_the_budget(lengths: list[int], max_tokens: int) -> None:
    tensor = torch.tensor(lengths, dtype=torch.int64)
    chunks = plan_chunks(tensor, max_tokens)
    assert sorted(index for chunk in chunks for index in chunk.tolist()) == list(range(len(lengths)))
    for chunk in chunks:
        assert len(chunk) == 1 or len(chunk) * int(tensor[chunk].max()) <= max_tokens
    assert [chunk.tolist() for chunk in plan_chunks(tensor, max_tokens)] == [chunk.tolist() for chunk in chunks]


@given(st.lists(st.sampled_from([1, 5, 30, 31, 90, 100, 300]), min_size=1, max_size=7), st.integers(20, 700))
@settings(deadline=None, max_examples=60)
def test_no_partition_is_cheaper(lengths: list[int], max_tokens: int) -> None:
    chunks = plan_chunks(torch.tensor(lengths), max_tokens)
    cost = padded_tokens(torch.tensor(lengths), chunks) + CHUNK_OVERHEAD_TOKENS * len(chunks)
    assert cost == least_cost(lengths, max_tokens)


@given(st.lists(st.integers(1, 600), max_size=80), st.integers(1, 3000))
@settings(deadline=None)
def test_packed_chunks_are_a_partition_that_no_two_neighbours_could_share(lengths: list[int], max_tokens: int) -> None:
    tensor = torch.tensor(lengths, dtype=torch.int64)
    chunks = plan_packed_chunks(tensor, max_tokens)
    order = [index for chunk in chunks for index in chunk.tolist()]
    assert sorted(order) == list(range(len(lengths)))
    assert [lengths[index] for index in order] == sorted(lengths, reverse=True)
    for chunk in chunks:
        assert len(chunk) == 1 or int(tensor[chunk].sum()) <= max_tokens
    for chunk, following in itertools.pairwise(chunks):
        assert int(tensor[chunk].sum() + tensor[following[0]]) > max_tokens


def test_padded_tokens_counts_the_longest_text_for_each() -> None:
    assert padded_tokens(torch.tensor([4, 9, 2]), [torch.tensor([0, 1]), torch.tensor([2])]) == 20
    assert padded_tokens(torch.tensor([], dtype=torch.int64), []) == 0


def test_planning_512_distinct_lengths_takes_milliseconds() -> None:
    lengths = torch.arange(1, 513)
    times = []
    for _ in range(5):
        start = time.perf_counter()
        plan_chunks(lengths, 16384)
        times.append(time.perf_counter() - start)
    assert min(times) < 0.05


@pytest.mark.parametrize("plan", [plan_chunks, plan_packed_chunks])
def test_wrong_arguments_are_named(plan: Callable[[torch.Tensor, int], list[torch.Tensor]]) -> None:
    with pytest.raises(ValueError, match="need integers of shape"):
        plan(torch.zeros(2, 2, dtype=torch.int64), 10)
    with pytest.raises(ValueError, match="need integers of shape"):
        plan(torch.ones(2), 10)
    with pytest.raises(ValueError, match="Got max_tokens 0; need at least 1"):
        plan(torch.tensor([1]), 0)
    with pytest.raises(ValueError, match="Text 1 has 0 tokens"):
        plan(torch.tensor([3, 0]), 10)
