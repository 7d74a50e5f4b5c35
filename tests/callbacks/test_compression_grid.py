import pytest

from lightning_jv5.callbacks.compression_grid import GridCell, compression_grid, draw_grid, grid_table
from lightning_jv5.tasks import Score, View


def scored(view: View, value: float) -> Score:
    return Score("small", view, {"ndcg@10": value}, complete=True)


def test_a_dim_of_all_coordinates_and_the_whole_embedding_are_one_cell() -> None:
    scores = [scored(View(8), 0.3), scored(View(64), 0.5), scored(View(), 0.5), scored(View(8, "binary"), 0.1)]
    cells = compression_grid(scores, "ndcg@10", 64)
    assert [(cell.dim, cell.precision) for cell in cells] == [(64, "float"), (8, "float"), (8, "binary")]
    assert [cell.share_of_full for cell in cells] == pytest.approx([1.0, 0.6, 0.2])


@pytest.mark.parametrize("full", [0.0, -0.2])
def test_there_is_no_share_of_nothing(full: float) -> None:
    cells = compression_grid([scored(View(), full), scored(View(8), 0.1)], "ndcg@10", 64)
    assert [cell.share_of_full for cell in cells] == [None, None]
    assert grid_table(cells).endswith("| 8 | float | 32 | 0.1000 | - |")
    assert "-" in draw_grid(cells, title="small", metric="ndcg@10").axes[0].texts[0].get_text()


def test_what_a_task_lacks_is_an_empty_place() -> None:
    cells = [GridCell(64, "float", 256, 0.5, 1.0), GridCell(8, "binary", 1, 0.1, 0.2)]
    axes = draw_grid(cells, title="small", metric="ndcg@10").axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["float", "binary"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["64", "8"]
    assert [text.get_position() for text in axes.texts] == [(0, 0), (1, 1)]
    assert axes.images[0].get_array().mask.tolist() == [[False, True], [True, False]]
