import pytest
import torch

from lightning_jv5.metrics.tie_order import TieOrder


def test_places_are_kept_apart_from_what_was_given() -> None:
    given = torch.tensor([1, 0], dtype=torch.int32)
    order = TieOrder(given, document_count=2)
    given[0] = 7
    assert order.places.tolist() == [1, 0]
    assert order.places.dtype == torch.int32


@pytest.mark.parametrize("places", [[0, 1], [0, 1, 1], [1, 2, 3], [-1, 0, 1]])
def test_a_missing_position_is_refused(places: list[int]) -> None:
    with pytest.raises(ValueError, match=r"Got a tie order of shape \(\d,\); need each of 0 to 2 once"):
        TieOrder(torch.tensor(places), document_count=3)
