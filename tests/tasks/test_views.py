import pytest
import torch

from lightning_jv5.rebuildable import describe, rebuild
from lightning_jv5.tasks import View


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_truncating_is_followed_by_normalising_in_float32(dtype: torch.dtype) -> None:
    embeddings = torch.randn(5, 16, generator=torch.Generator().manual_seed(0)).to(dtype)
    view = View(dim=4)(embeddings)
    assert view.dtype == torch.float32
    torch.testing.assert_close(view, embeddings[:, :4].float() / embeddings[:, :4].float().norm(dim=1, keepdim=True))


def test_dot_of_binary_views_ranks_as_hamming_distance_does() -> None:
    generator = torch.Generator().manual_seed(0)
    query, document = (torch.randn(rows, 64, generator=generator) for rows in (3, 20))
    view = View(dim=48, precision="binary")
    distance = ((query[:, None, :48] >= 0) != (document[:, :48] >= 0)).sum(2)
    assert (view(query) @ view(document).T).equal(48.0 - 2 * distance)


def test_zero_counts_as_positive() -> None:
    assert View(precision="binary")(torch.tensor([[0.0, -0.0, -1e-30]])).tolist() == [[1.0, 1.0, -1.0]]


def test_a_binary_view_does_not_hide_what_is_not_a_number() -> None:
    view = View(precision="binary")(torch.tensor([[torch.nan, torch.inf, 1.0]]))
    assert view.isnan().tolist() == [[True, True, False]]


def test_an_empty_text_stays_zero() -> None:
    assert View(dim=2)(torch.zeros(1, 4)).tolist() == [[0.0, 0.0]]


@pytest.mark.parametrize(
    ("view", "name"),
    [
        (View(), ""),
        (View(dim=64), "dim64"),
        (View(precision="binary"), "binary"),
        (View(64, "binary"), "dim64_binary"),
    ],
)
def test_name_is_for_log_keys_and_a_checkpoint_keeps_the_view(view: View, name: str) -> None:
    assert view.name == name
    assert rebuild(describe(view)) == view


def test_impossible_views_are_refused() -> None:
    with pytest.raises(ValueError, match="Got a view of dim 0; need at least 1"):
        View(dim=0)
    with pytest.raises(ValueError, match="Got precision 'int8'; need 'float' or 'binary'"):
        View(precision="int8")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="embeddings of 4 coordinates for a view of 8"):
        View(dim=8)(torch.ones(1, 4))
