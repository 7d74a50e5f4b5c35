import math

import pytest

from lightning_jv5.losses import CosineRamp, LinearRamp
from lightning_jv5.losses.schedule import Constant, as_schedule
from lightning_jv5.rebuildable import describe, rebuild


@pytest.mark.parametrize(("start", "end", "steps", "begin"), [(0.0, 1.0, 4, 0), (2.0, -1.0, 7, 3)])
def test_ramps_match_their_formulas(start: float, end: float, steps: int, begin: int) -> None:
    linear, cosine = (kind(start, end, steps, begin) for kind in (LinearRamp, CosineRamp))
    for step in range(begin + steps + 3):
        share = 0 if step < begin else 1 if step > begin + steps else (step - begin) / steps
        assert linear.at(step) == pytest.approx((1 - share) * start + share * end)
        bent = 0.5 - 0.5 * math.cos(math.pi * share)
        assert cosine.at(step) == pytest.approx((1 - bent) * start + bent * end)


def test_only_what_changes_is_watched() -> None:
    assert Constant(0.5).watched("weight", 3) == {}
    assert LinearRamp(0, 1, 4).watched("weight", 3) == {"weight": 0.75}


def test_a_number_stands_for_a_constant() -> None:
    ramp = LinearRamp(0, 1, 4)
    assert as_schedule(ramp) is ramp
    assert as_schedule(2).at(7) == 2


def test_a_schedule_is_written_down_and_made_again() -> None:
    again = rebuild(describe(CosineRamp(1.0, 0.5, steps=3)))
    assert (type(again), again.at(3)) == (CosineRamp, 0.5)


def test_what_is_wrong_is_said() -> None:
    with pytest.raises(ValueError, match="ramp from nan to 1; need finite numbers"):
        LinearRamp(float("nan"), 1, 3)
    with pytest.raises(ValueError, match="ramp of 0 steps from step 0; need at least 1"):
        CosineRamp(0, 1, 0)
    with pytest.raises(ValueError, match="ramp of 3 steps from step -1"):
        LinearRamp(0, 1, 3, begin=-1)
    with pytest.raises(ValueError, match="Got the value inf; need a finite number"):
        Constant(math.inf)
