import itertools
import tracemalloc
from collections import Counter

import numpy as np
import pytest

from lightning_jv5.data import mixture
from lightning_jv5.data.mixture import Draw, MixturePlan, PlannedSet, weights_by_size


def plan(seed: int = 0) -> MixturePlan:
    return MixturePlan({"a": PlannedSet(10, 3), "b": PlannedSet(8, 4, 2.0), "s": PlannedSet(None, 5, 0.5)}, seed)


def test_draws_are_those_of_counting_from_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mixture, "_STEPS_PER_BLOCK", 7)
    seen: Counter[str] = Counter()
    forward = plan()
    for step in range(40):
        assert forward.drawn(step) == {name: seen[name] for name in "abs"}
        draw = forward.draw(step)
        assert (draw.step, draw.batch) == (step, seen[draw.dataset])
        seen[draw.dataset] += 1
    in_order = [forward.draw(step) for step in range(40)]
    # in any order, from any process, and whatever the number of steps that are planned together
    backward = plan()
    assert [backward.draw(step) for step in reversed(range(40))] == in_order[::-1]
    monkeypatch.undo()
    assert [plan().draw(step) for step in range(40)] == in_order


def test_sets_are_drawn_by_weight() -> None:
    drawn = plan().drawn(70_000)
    assert sum(drawn.values()) == 70_000
    for name, share in {"a": 2 / 7, "b": 4 / 7, "s": 1 / 7}.items():
        assert drawn[name] / 70_000 == pytest.approx(share, abs=0.01)


def test_a_set_of_no_weight_is_never_drawn() -> None:
    sets = {"a": PlannedSet(4, 2, 0.0), "b": PlannedSet(4, 2), "c": PlannedSet(4, 2, 0.0)}
    assert MixturePlan(sets, 0).drawn(100_000) == {"a": 0, "b": 100_000, "c": 0}


def test_a_permutation_uses_every_row_once_and_the_next_differs() -> None:
    sets = MixturePlan({"a": PlannedSet(12, 4)}, seed=3)
    batches = [sets.rows(Draw(0, "a", batch)).tolist() for batch in range(6)]
    first, second = list(itertools.chain(*batches[:3])), list(itertools.chain(*batches[3:]))
    assert sorted(first) == sorted(second) == list(range(12))
    assert first != second


def test_rows_that_do_not_fill_a_batch_differ_between_permutations() -> None:
    sets = MixturePlan({"a": PlannedSet(10, 3)}, seed=0)
    left_out = [
        set(range(10)) - {row for batch in range(3) for row in sets.rows(Draw(0, "a", 3 * epoch + batch)).tolist()}
        for epoch in range(20)
    ]
    assert {len(rows) for rows in left_out} == {1}
    assert len(set().union(*left_out)) > 5


def test_seed_name_and_substitute_change_the_rows() -> None:
    draw = Draw(0, "a", 0)
    rows = {
        tuple(MixturePlan({name: PlannedSet(1000, 8)}, seed).rows(Draw(0, name, 0), again).tolist())
        for name in "ab"
        for seed in range(2)
        for again in range(2)
    }
    assert len(rows) == 8
    assert plan().rows(draw).tolist() == plan().rows(draw).tolist()


def test_the_order_in_which_sets_are_named_does_not_matter() -> None:
    sets = {"a": PlannedSet(10, 2), "b": PlannedSet(8, 2, 2.0), "c": PlannedSet(8, 2)}
    forward, backward = MixturePlan(sets, 0), MixturePlan(dict(reversed(sets.items())), 0)
    assert [forward.draw(step) for step in range(50)] == [backward.draw(step) for step in range(50)]


def test_another_seed_draws_other_sets() -> None:
    assert [plan(0).draw(step).dataset for step in range(30)] != [plan(1).draw(step).dataset for step in range(30)]


def test_the_batches_of_all_sets_are_counted_unless_one_has_no_end() -> None:
    assert MixturePlan({"a": PlannedSet(10, 3), "b": PlannedSet(8, 4)}, 0).batches() == 5
    assert plan().batches() is None


def test_an_epoch_has_no_batches_of_a_set_that_is_never_drawn() -> None:
    assert MixturePlan({"a": PlannedSet(10, 2, 0.0), "b": PlannedSet(8, 2)}, 0).batches() == 4


def test_memory_does_not_grow_with_the_rows() -> None:
    tracemalloc.start()
    huge = MixturePlan({"a": PlannedSet(10**9, 512), "b": PlannedSet(10**9, 512)}, seed=0)
    for step in range(5_000_000, 5_001_000):
        rows = huge.rows(huge.draw(step))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(np.unique(rows)) == 512
    assert peak < 50e6


def test_a_stream_has_no_row_numbers() -> None:
    with pytest.raises(ValueError, match="'s' is a stream"):
        plan().rows(Draw(0, "s", 0))


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        ({}, "Got no data sets"),
        ({"a": PlannedSet(4, 5)}, "batch size of 5 for the data set 'a' of 4 rows; need between 1 and 4"),
        ({"a": PlannedSet(4, 0)}, "batch size of 0"),
        ({"a": PlannedSet(4, 2, -1.0)}, r"weight -1\.0 for the data set 'a'"),
        ({"a": PlannedSet(4, 2, float("nan"))}, "weight nan for the data set 'a'"),
        ({"a": PlannedSet(4, 2, 0.0), "b": PlannedSet(4, 2, 0.0)}, r"weights of zero for all data sets \(a, b\)"),
    ],
)
def test_plans_that_cannot_be_are_refused(sets: dict[str, PlannedSet], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MixturePlan(sets, 0)


def test_a_negative_step_is_refused() -> None:
    with pytest.raises(ValueError, match="Got step -1; the first is 0"):
        plan().draw(-1)


def test_weights_by_size() -> None:
    assert weights_by_size({"a": 9, "b": 1}, 1.0) == {"a": 9.0, "b": 1.0}
    assert weights_by_size({"a": 9, "b": 1}, 0.0) == {"a": 1.0, "b": 1.0}
    with pytest.raises(ValueError, match="Got size_exponent 2; need between 0"):
        weights_by_size({"a": 9}, 2)
