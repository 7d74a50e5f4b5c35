import pytest

from lightning_jv5.metrics.groups import rows_by_group


def test_rows_stand_under_their_group_in_order_and_those_of_none_nowhere() -> None:
    found = rows_by_group(["b", "a", None, "b", "a"], rows=5)
    assert {group: rows.tolist() for group, rows in found.items()} == {"a": [1, 4], "b": [0, 3]}
    assert list(found) == ["a", "b"]
    assert rows_by_group([None], rows=1) == {}


def test_a_group_is_needed_for_each_row() -> None:
    with pytest.raises(ValueError, match="Got 2 groups for 3 rows; need one for each"):
        rows_by_group(["a", "b"], rows=3)
