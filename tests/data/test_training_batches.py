import pytest

from lightning_jv5.data.batches import TextBatch
from lightning_jv5.data.mixture import Draw, MixturePlan, PlannedSet
from lightning_jv5.data.training_batches import Steps, TrainingBatches

PLAN = MixturePlan({"a": PlannedSet(12, 4), "b": PlannedSet(6, 2)}, seed=0)


class Noting:
    """Notes what it is asked for in the batch itself."""

    def __init__(self, size: int) -> None:
        self.size = size

    def batch(self, draw: Draw, part: slice) -> TextBatch:
        return TextBatch({}, dataset=f"{draw.dataset} {list(range(self.size))[part]}", step=draw.step)


SETS = {"a": Noting(4), "b": Noting(2)}


def test_ranks_draw_the_same_set_and_take_parts_that_make_up_the_batch() -> None:
    ranks = [TrainingBatches(PLAN, SETS, rank=rank, ranks=2) for rank in range(2)]
    for step in range(20):
        first, second = (batches[step].dataset for batches in ranks)
        name = PLAN.draw(step).dataset
        assert (first, second) == ((f"{name} [0, 1]", f"{name} [2, 3]") if name == "a" else ("b [0]", "b [1]"))
        assert ranks[0][step].step == step


def test_a_batch_that_ranks_cannot_share_equally_is_refused() -> None:
    with pytest.raises(ValueError, match="global batch of 4 rows of 'a' for 3 processes; need a multiple of 3"):
        TrainingBatches(PLAN, SETS, ranks=3)


def test_steps_go_on_from_the_position_each_time() -> None:
    place = iter([0, 4])
    steps = Steps(3, position=lambda: next(place))
    assert (len(steps), list(steps), list(steps)) == (3, [0, 1, 2], [4, 5, 6])
