"""Which groups of a task are worst: a mean hides them."""

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lightning.pytorch import LightningModule, Trainer

from lightning_jv5.callbacks.ranked_examples import one_line
from lightning_jv5.callbacks.report import log_figure, log_text
from lightning_jv5.callbacks.view_evaluation import ViewEvaluation, log_score
from lightning_jv5.tasks import Evaluation, View

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST_CHARACTERS = 40

Groups = Mapping[str, Mapping[str, float]]


class GroupBreakdown(ViewEvaluation):
    """Show the scores of each group of a task, such as languages or labels, worst first.

    For tasks whose metric has groups (:meth:`~lightning_jv5.metrics.StreamingMetric.breakdown`). The main measure is
    logged as ``val/<task>/<measure>/group/<group>`` and drawn as ``val/groups/<task>``; the table beside it has all
    measures. In log keys, whatever is not a letter, a digit, ``.``, ``-`` or ``_`` becomes ``_``, and names that
    thereby are alike are numbered.

    Args:
        most_bars: Groups in the figure: of more, the worst and the best halves are drawn.

    Raises:
        ValueError: If there are fewer than two bars.

    >>> GroupBreakdown().most_bars
    40
    """

    def __init__(self, most_bars: int = 40) -> None:
        if most_bars < 2:
            raise ValueError(f"Got most_bars {most_bars}; need at least 2, the worst and the best. Raise it.")
        self.most_bars = most_bars

    def views(self) -> list[View]:
        """Return the whole embedding."""
        return [View()]

    def finish(self, trainer: Trainer, pl_module: LightningModule, prefix: str, evaluation: Evaluation) -> None:
        """Log and show the groups of each task that has them."""
        evaluation.compute(self.views())  # whose work a breakdown may rest on
        for name, task in evaluation.tasks.items():
            groups = evaluation.metric(name, View()).breakdown()
            values = {group: of[task.main_metric] for group, of in groups.items() if task.main_metric in of}
            for group, key in log_keys(list(values)).items():
                log_score(pl_module, f"{prefix}/{name}/{task.main_metric}/group/{key}", values[group])
            if not groups or not trainer.is_global_zero:
                continue
            data = {"step": trainer.global_step, "metric": task.main_metric, "groups": groups}
            log_text(trainer, f"{prefix}/groups/{name}", groups_table(groups, task.main_metric), data)
            if values:
                title = f"{name} by group, step {trainer.global_step}"
                figure = draw_groups(values, title=title, metric=task.main_metric, most_bars=self.most_bars)
                log_figure(trainer, f"{prefix}/groups/{name}", figure, data)


def log_keys(groups: Sequence[str]) -> dict[str, str]:
    """Return what log keys call each group.

    >>> log_keys(["en-de", "a b", "a/b", ""])
    {'en-de': 'en-de', 'a b': 'a_b', 'a/b': 'a_b_2', '': '_'}
    """
    keys: dict[str, str] = {}
    for group in groups:
        plain = key = re.sub(r"[^\w.-]", "_", group) or "_"
        number = 1
        while key in keys.values():
            number += 1
            key = f"{plain}_{number}"
        keys[group] = key
    return keys


def groups_table(groups: Groups, metric: str) -> str:
    """Return a Markdown table of all measures, the groups that are worst by ``metric`` first.

    >>> print(groups_table({"de": {"ndcg@10": 0.75, "queries": 8}, "en": {"ndcg@10": 0.5}}, "ndcg@10"))
    | group | ndcg@10 | queries |
    |:---|---:|---:|
    | en | 0.5000 | - |
    | de | 0.7500 | 8 |
    """
    measures = list(dict.fromkeys([metric, *(measure for of in groups.values() for measure in of)]))
    ordered = sorted(groups, key=lambda group: (groups[group].get(metric, float("inf")), group))
    lines = [f"| group | {' | '.join(measures)} |", f"|:---|{'---:|' * len(measures)}"]
    for group in ordered:
        cells = [_number(groups[group].get(measure)) for measure in measures]
        lines.append(f"| {one_line(group)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def draw_groups(values: Mapping[str, float], *, title: str, metric: str, most_bars: int) -> "Figure":
    """Draw a horizontal bar for each group, the best on top; of many, the worst and the best.

    Args:
        values: Value of each group.
        title: Title of the figure.
        metric: What the values are.
        most_bars: Most groups to draw.

    Returns:
        A figure that belongs to no pyplot state.

    >>> values = {"en": 0.5, "de": 0.75, "fr": 0.6, "it": 0.7}
    >>> figure = draw_groups(values, title="small", metric="ndcg@10", most_bars=2)
    >>> [tick.get_text() for tick in figure.axes[0].get_yticklabels()]
    ['en', '2 more', 'de']
    """
    from matplotlib.figure import Figure

    ordered: list[tuple[str, float | None]] = sorted(values.items(), key=lambda item: (item[1], item[0]))
    mean = sum(values.values()) / len(values)
    if len(ordered) > most_bars:
        best = most_bars // 2
        worst = most_bars - best
        ordered = [*ordered[:worst], (f"{len(values) - most_bars} more", None), *ordered[len(values) - best :]]
    figure = Figure(figsize=(7.2, 1.3 + 0.24 * len(ordered)), layout="constrained")
    axes = figure.subplots()
    places = [place for place, (_, value) in enumerate(ordered) if value is not None]
    drawn = [value for _, value in ordered if value is not None]
    bars = axes.barh(places, drawn, color=["C0" if value >= mean else "C1" for value in drawn], height=0.75)
    axes.bar_label(bars, [f"{value:.3f}" for value in drawn], padding=3, fontsize="x-small")
    axes.axvline(mean, color="0.3", linewidth=1, linestyle=":", label=f"mean of {len(values)} groups: {mean:.3f}")
    axes.set_yticks(range(len(ordered)), [_shortened(group) for group, _ in ordered], fontsize="small")
    axes.set_ylim(-0.7, len(ordered) - 0.3)
    axes.margins(x=0.12)
    axes.set_xlabel(metric)
    axes.set_title(title, fontsize="medium")
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize="small", loc="lower right")  # where the worst are, whose bars are short
    return figure


def _shortened(group: str) -> str:
    line = " ".join(group.split()).replace("$", r"\$")  # which would begin a formula
    return line if len(line) <= _MOST_CHARACTERS else f"{line[: _MOST_CHARACTERS - 1]}…"


def _number(value: Any) -> str:
    if value is None:
        return "-"
    return str(int(value)) if float(value).is_integer() and abs(value) > 1 else f"{value:.4f}"
