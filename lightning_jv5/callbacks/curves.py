"""The one way in which scores are drawn over the size of an embedding: its coordinates or its bytes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST_COLUMNS = 3
_MOST_TICKS = 10


@dataclass(frozen=True)
class Curve:
    """One line: a score at each size.

    Attributes:
        label: What the legend says; nothing there if empty.
        sizes: Numbers of coordinates, or of bytes; ascending.
        values: Score at each size.
        color: Colour in matplotlib's cycle; by default the next one.
        dashed: Whether the line is dashed.

    >>> Curve("retrieval", [32, 64], [0.4, 0.5]).dashed
    False
    """

    label: str
    sizes: Sequence[int]
    values: Sequence[float]
    color: int | None = None
    dashed: bool = False


def draw_curves(
    panels: Mapping[str, Sequence[Curve]],
    *,
    title: str,
    metric: str | Mapping[str, str],
    size: str = "coordinates kept",
) -> "Figure":
    """Draw scores over sizes, in panels of their own; at most three beside each other.

    Args:
        panels: Curves by the title of their panel.
        title: Title of the whole.
        metric: What the y axis shows, in all panels or in each by its title.
        size: What the x axis shows, on a scale of powers of two.

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
    columns = 2 if len(panels) == 4 else min(len(panels), _MOST_COLUMNS)
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(1.4 + 4.8 * columns + 2.0 * beside, 0.4 + 3.8 * rows), layout="constrained")
    figure.suptitle(title)
    handles: dict[str, Any] = {}
    places = figure.subplots(rows, columns, squeeze=False).flatten()
    for axes, (name, curves) in zip(places, panels.items(), strict=False):
        for position, curve in enumerate(curves):
            [handles[curve.label]] = axes.plot(
                curve.sizes,
                curve.values,
                label=curve.label,
                color=f"C{position if curve.color is None else curve.color}",
                linestyle="--" if curve.dashed else "-",
                marker="o",
                markersize=4.5,
                markerfacecolor="white" if curve.dashed else None,
            )
        axes.set_xscale("log", base=2)
        ticks = readable_ticks([drawn for curve in curves for drawn in curve.sizes])
        axes.set_xticks(ticks, [str(tick) for tick in ticks], rotation=45 if len(ticks) > 8 else 0)
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlabel(size)
        axes.set_ylabel(metric if isinstance(metric, str) else metric[name])
        axes.set_title(name, fontsize="medium")
        axes.grid(alpha=0.3)
        axes.margins(y=0.1)
        axes.spines[["top", "right"]].set_visible(False)
        if labels and not beside:
            axes.legend(fontsize="small", loc="lower right")  # curves rise
    for empty in places[len(panels) :]:
        empty.set_visible(False)
    if beside:
        lines = [handles[label] for label in labels]
        figure.legend(lines, labels, fontsize="small", handlelength=2.6, loc="outside right center")
    return figure


def readable_ticks(sizes: Sequence[int]) -> list[int]:
    """Return the sizes themselves, or the powers of two between them where they are too many.

    >>> readable_ticks([96, 32, 64])
    [32, 64, 96]
    >>> readable_ticks([*range(5, 13), *range(60, 70)])
    [8, 16, 32, 64]
    """
    different = sorted(set(sizes))
    if len(different) <= _MOST_TICKS:
        return different
    return [2**power for power in range((different[0] - 1).bit_length(), different[-1].bit_length())]
