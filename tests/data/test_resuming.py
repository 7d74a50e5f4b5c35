import copy
from typing import Any

import pytest

from lightning_jv5.data.resuming import check_same_data

PLAN: dict[str, Any] = {
    "seed": 0,
    "distinct_texts": False,
    "sets": {"nli": {"rows": 10, "batch_size": 4, "weight": 1.0}, "sts": {"rows": 8, "batch_size": 2, "weight": 1.0}},
}


def test_the_same_data_pass() -> None:
    check_same_data(PLAN, copy.deepcopy(PLAN))


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("seed",), 1, "seed was 0 and is 1"),
        (("sets", "nli", "rows"), 11, "rows of the data set 'nli' was 10 and is 11"),
        (("sets", "sts", "batch_size"), 4, "batch_size of the data set 'sts' was 2 and is 4"),
        (("sets", "sts", "shuffle_rows"), 4, "shuffle_rows of the data set 'sts' was None and is 4"),
        (("sets", "new"), {"rows": 1}, "the data set 'new' is new"),
    ],
)
def test_a_difference_is_named(path: tuple[str, ...], value: Any, message: str) -> None:
    now: Any = copy.deepcopy(PLAN)
    inner = now
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = value
    with pytest.raises(ValueError, match=f"trained on other data: {message}. Set the data as they were"):
        check_same_data(PLAN, now)


def test_a_set_that_is_gone_is_named() -> None:
    with pytest.raises(ValueError, match="the data set 'sts' is not there any more"):
        check_same_data(PLAN, {**PLAN, "sets": {"nli": PLAN["sets"]["nli"]}})
