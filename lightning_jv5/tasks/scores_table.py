"""Scores as a table for people: a line for each task, then what each view keeps of the whole embeddings."""

from collections.abc import Sequence

from lightning_jv5.metrics.views import PRECISIONS
from lightning_jv5.tasks.evaluation import Score


def scores_table(scores: Sequence[Score]) -> str:
    """Return scores as aligned text.

    First a line for each task, its main measure before the others: those of whole embeddings, or of the first view
    where these were not scored. Then, for each task that was scored in several views, a line for each: coordinates,
    precision, bytes that a stored vector takes, the main measure, and its share of what whole embeddings have in float.

    Args:
        scores: What :func:`~lightning_jv5.tasks.evaluate` returned.

    >>> from lightning_jv5.metrics.views import View
    >>> floats = Score("sts", View(), {"spearman": 0.8, "pearson": 0.75}, complete=True, width=384)
    >>> bits = Score("sts", View(64, "binary"), {"spearman": 0.6, "pearson": 0.5}, complete=True, width=384)
    >>> print(scores_table([floats, bits]))
    task  measure    score  others
    sts   spearman  0.8000  pearson 0.7500
    <BLANKLINE>
    sts: spearman
    dim  precision  bytes   score  of full
    384  float       1536  0.8000   100.0%
     64  binary         8  0.6000    75.0%
    """
    by_task: dict[str, list[Score]] = {}
    for score in scores:
        by_task.setdefault(score.task, []).append(score)
    blocks = [_tasks_block(by_task)] if by_task else []
    views = {task: _distinct_views(of_task) for task, of_task in by_task.items()}
    blocks += [_views_block(task, of_task) for task, of_task in views.items() if len(of_task) > 1]
    return "\n\n".join(blocks)


def share_of_full(score: Score, scores: Sequence[Score]) -> float | None:
    """Return a score's main measure over that of whole embeddings in float; None where there is no such share.

    Args:
        score: The score.
        scores: All scores of the pass.

    >>> from lightning_jv5.metrics.views import View
    >>> whole = Score("sts", View(), {"spearman": 0.8}, complete=True)
    >>> half = Score("sts", View(dim=4), {"spearman": 0.4}, complete=True)
    >>> share_of_full(half, [whole, half])
    0.5
    """
    full = next((one.values[one.main] for one in scores if one.task == score.task and _is_full(one)), None)
    return score.values[score.main] / full if full is not None and full > 0 else None


def _is_full(score: Score) -> bool:
    return score.view.precision == "float" and score.dim == score.width


def _tasks_block(by_task: dict[str, list[Score]]) -> str:
    rows = [("task", "measure", "score", "others")]
    for task, scores in by_task.items():
        shown = next(filter(_is_full, scores), scores[0])
        others = ", ".join(f"{name} {value:.4f}" for name, value in shown.values.items() if name != shown.main)
        rows.append((task, shown.main, f"{shown.values[shown.main]:.4f}", others))
    return _aligned(rows, left={0, 1, 3})


def _distinct_views(scores: Sequence[Score]) -> list[Score]:
    """Drop the second of two views that keep the same: all coordinates may be said in two ways."""
    return list({(score.dim, score.view.precision): score for score in reversed(scores)}.values())


def _views_block(task: str, scores: Sequence[Score]) -> str:
    rows = [("dim", "precision", "bytes", "score", "of full")]
    for score in sorted(scores, key=lambda one: (PRECISIONS.index(one.view.precision), -(one.dim or 0))):
        share, size = share_of_full(score, scores), score.bytes_per_vector
        rows.append(
            (
                "whole" if score.dim is None else str(score.dim),
                score.view.precision,
                "-" if size is None else str(size),
                f"{score.values[score.main]:.4f}",
                "-" if share is None else f"{share:.1%}",
            )
        )
    return f"{task}: {scores[0].main}\n{_aligned(rows, left={1})}"


def _aligned(rows: Sequence[tuple[str, ...]], left: set[int]) -> str:
    """Lay cells out in columns, the ones in ``left`` flush left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if place in left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )
