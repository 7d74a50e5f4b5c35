import itertools

import pytest

from lightning_jv5.data.order import BatchOrder


def batches(count: int, start: int = 0, **settings: int) -> list[list[int]]:
    """``count`` batches from a position on, however many iterations that takes."""
    found: list[list[int]] = []
    order = BatchOrder(**{"rows": 23, "batch_size": 4, "seed": 0, **settings}, position=lambda: start + len(found))
    while len(found) < count:
        found.extend(itertools.islice(order, count - len(found)))
    return found


def test_every_epoch_is_another_permutation() -> None:
    per_epoch = 23 // 4
    epochs = [batches(per_epoch, start=epoch * per_epoch) for epoch in range(5)]
    for epoch in epochs:
        rows = [row for batch in epoch for row in batch]
        assert len(set(rows)) == len(rows) == 20
        assert set(rows) <= set(range(23))
    assert len({str(epoch) for epoch in epochs}) == 5
    assert {row for epoch in epochs for batch in epoch for row in batch} == set(range(23))


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_ranks_divide_the_batch_that_one_process_has(ranks: int) -> None:
    slices = [batches(12, rank=rank, ranks=ranks) for rank in range(ranks)]
    for whole, *parts in zip(batches(12), *slices, strict=True):
        assert [row for part in parts for row in part] == whole


@pytest.mark.parametrize("position", range(12))
def test_any_position_goes_on_where_the_others_stopped(position: int) -> None:
    assert batches(12 - position, start=position) == batches(12)[position:]


def test_the_order_depends_on_seed_and_position_alone() -> None:
    order = BatchOrder(23, 4, seed=0)
    assert list(order) == list(order) == batches(5)
    assert len(order) == 5
    assert batches(5, seed=1) != batches(5)


def test_batches_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="batch size of 5 for a data set of 4 rows; need between 1 and 4"):
        BatchOrder(4, 5, seed=0)
    with pytest.raises(ValueError, match="batch size of 0"):
        BatchOrder(4, 0, seed=0)
    with pytest.raises(ValueError, match="global batch of 3 rows for 2 processes; need a multiple of 2"):
        BatchOrder(4, 3, seed=0, ranks=2)
