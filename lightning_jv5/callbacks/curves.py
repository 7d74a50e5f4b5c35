"""The one way in which scores are drawn over the size of an embedding."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Curve:
    """One line: a score at each dim.

    Attributes:
        label: What the legend says; nothing there if empty.
        dims: Numbers of coordinates, ascending.
        values: Score at each dim.
        color: Colour in matplotlib's cycle; by default the next one.
        dashed: Whether the line is dashed.

    >>> Curve("retrieval", [32, 64], [0.4, 0.5]).dashed
    False
    """

    label: str
    dims: Sequence[int]
    values: Sequence[float]
    color: int | None = None
    dashed: bool = False


def draw_curves(panels: Mapping[str, Sequence[Curve]], *, title: str, metric: str) -> "Figure":
    """Draw scores over dims, one panel beside the other.

    Args:
        panels: Curves by the title of their panel.
        title: Title of the whole.
        metric: What the y axis shows.

    Returns:
        A figure that belongs to no pyplot state.

    >>> figure = draw_curves({"": [Curve("small", [32, 64], [0.4, 0.5])]}, title="Sizes", metric="ndcg@10")
    >>> [tick.get_text() for tick in figure.axes[0].get_xticklabels()]
    ['32', '64']
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullLocator

    labels = list(dict.fromkeys(curve.label for curves in panels.values() for curve in curves if curve.label))
    beside = len(labels) > 3  # so many that a legend inside would hide lines
    figure = Figure(figsize=(1.4 + 4.8 * len(panels) + 2.0 * beside, 4.2), layout="constrained")
    figure.suptitle(title)
    handles: dict[str, Any] = {}
    for axes, (name, curves) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        dims = sorted({dim for curve in curves for dim in curve.dims})
        for position, curve in enumerate(curves):
            [handles[curve.label]] = axes.plot(
                curve.dims,
                curve.values,
                label=curve.label,
                color=f"C{position if curve.color is None else curve.color}",
                linestyle="--" if curve.dashed else "-",
                marker="o",
                markersize=4.5,
                markerfacecolor="white" if curve.dashed else None,
            )
        axes.set_xscale("log", base=2)
        crowded = len(dims) > 8
        axes.set_xticks(dims, [str(dim) for dim in dims], rotation=45 if crowded else 0)
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlabel("coordinates kept")
        axes.set_ylabel(metric)
        axes.set_title(name, fontsize="medium")
        axes.grid(alpha=0.3)
        axes.margins(y=0.1)
        axes.spines[["top", "right"]].set_visible(False)
        if labels and not beside:
            axes.legend(fontsize="small", loc="lower right")  # curves rise
    if beside:
        figure.legend([handles[label] for label in labels], labels, fontsize="small", loc="outside right center")
    return figure
