"""What is left of a score at each number of coordinates and each precision, and what that saves."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from lightning_jv5.metrics.views import PRECISIONS, Precision
from lightning_jv5.tasks import Score, View

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class GridCell:
    """One way to store the documents of a task.

    Attributes:
        dim: Coordinates that are kept.
        precision: How each of them is stored and compared.
        bytes_per_vector: What a stored vector takes in memory.
        score: Main measure of the task.
        share_of_full: The score in relation to that of whole embeddings in floats; None where that is not above 0.
    """

    dim: int
    precision: Precision
    bytes_per_vector: int
    score: float
    share_of_full: float | None


def compression_grid(scores: Sequence[Score], metric: str, width: int) -> list[GridCell]:
    """Return the views of one task as cells, the largest dims first, and of each the precisions of the most bits.

    Args:
        scores: Of one task, that of the whole embedding among them.
        metric: The measure to compare.
        width: Coordinates of whole embeddings.

    >>> scores = [Score("small", view, {"ndcg@10": 0.5}, True) for view in (View(), View(precision="binary"))]
    >>> compression_grid(scores, "ndcg@10", 64)[1]
    GridCell(dim=64, precision='binary', bytes_per_vector=8, score=0.5, share_of_full=1.0)
    """
    full = next(score.values[metric] for score in scores if score.view == View())
    cells = {
        (dim, score.view.precision): GridCell(
            dim,
            score.view.precision,
            score.view.bytes_per_vector(width),
            score.values[metric],
            score.values[metric] / full if full > 0 else None,
        )
        for score in scores
        for dim in [score.view.dim or width]
    }
    return [cells[key] for key in sorted(cells, key=lambda key: (-key[0], PRECISIONS.index(key[1])))]


def grid_table(cells: Sequence[GridCell]) -> str:
    """Return the cells as a Markdown table.

    >>> print(grid_table([GridCell(64, "binary", 8, 0.5, 0.975)]))
    | dim | precision | bytes per vector | score | share of full |
    |---:|:---|---:|---:|---:|
    | 64 | binary | 8 | 0.5000 | 97.5% |
    """
    lines = ["| dim | precision | bytes per vector | score | share of full |", "|---:|:---|---:|---:|---:|"]
    lines += [
        f"| {cell.dim} | {cell.precision} | {cell.bytes_per_vector} | {cell.score:.4f} | {_percent(cell)} |"
        for cell in cells
    ]
    return "\n".join(lines)


def grid_data(cells: Sequence[GridCell]) -> list[dict[str, Any]]:
    """Return the cells as plain data.

    >>> grid_data([GridCell(64, "binary", 8, 0.5, None)])
    [{'dim': 64, 'precision': 'binary', 'bytes_per_vector': 8, 'score': 0.5, 'share_of_full': None}]
    """
    return [asdict(cell) for cell in cells]


def draw_grid(cells: Sequence[GridCell], *, title: str, metric: str) -> "Figure":
    """Draw the cells as a heat map: a row for each dim, a column for each precision, coloured by the share of full.

    Args:
        cells: As :func:`compression_grid` gives them.
        title: Title of the figure.
        metric: What the scores are.

    Returns:
        A figure that belongs to no pyplot state.

    >>> figure = draw_grid([GridCell(64, "binary", 8, 0.5, 0.975)], title="small", metric="ndcg@10")
    >>> [text.get_text().split() for text in figure.axes[0].texts]
    [['0.5000', '97.5%', '·', '8', 'B']]
    """
    import numpy as np
    from matplotlib.figure import Figure

    dims = list(dict.fromkeys(cell.dim for cell in cells))
    precisions = [precision for precision in PRECISIONS if any(cell.precision == precision for cell in cells)]
    shares = np.full((len(dims), len(precisions)), np.nan)
    figure = Figure(figsize=(2.6 + 1.45 * len(precisions), 1.5 + 0.62 * len(dims)), layout="constrained")
    axes = figure.subplots()
    for cell in cells:
        share = np.nan if cell.share_of_full is None else 100 * cell.share_of_full
        shares[dims.index(cell.dim), precisions.index(cell.precision)] = share
    known = shares[np.isfinite(shares)]
    # From 50% up, unless something is worse: a loss of 1% should not look like one of all
    low, high = min([50.0, *known]), max([100.0, *known])
    image = axes.imshow(np.ma.masked_invalid(shares), cmap="viridis", vmin=low, vmax=high, aspect="auto")
    for cell in cells:
        row, column = dims.index(cell.dim), precisions.index(cell.precision)
        bright = np.isnan(shares[row, column]) or shares[row, column] > low + 0.6 * (high - low)
        axes.text(
            column,
            row,
            f"{cell.score:.4f}\n{_percent(cell)} · {cell.bytes_per_vector} B",
            ha="center",
            va="center",
            fontsize="small",
            color="black" if bright else "white",
        )
    axes.set_xticks(range(len(precisions)), precisions)
    axes.set_yticks(range(len(dims)), [str(dim) for dim in dims])
    axes.set_ylabel("coordinates kept")
    axes.set_title(f"{title}\n{metric}, share of whole floats, bytes per vector", fontsize="medium")
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    figure.colorbar(image, ax=axes, label="share of full (%)")
    return figure


def _percent(cell: GridCell) -> str:
    return "-" if cell.share_of_full is None else f"{cell.share_of_full:.1%}"
