"""Show what the student ranks first: a score says how good it is, examples say at what."""

import html
import re
from collections.abc import Sequence
from typing import Any

from lightning.pytorch import LightningModule, Trainer

from lightning_jv5.callbacks.report import log_text
from lightning_jv5.callbacks.view_evaluation import ViewEvaluation
from lightning_jv5.metrics.views import Precision
from lightning_jv5.tasks import Evaluation, View

_MOST_CHARACTERS = 160
_MARKDOWN = re.compile(r"([\\`*_\[\]|~#])")


class RankedExamples(ViewEvaluation):
    """Show a few queries and what ranks first for them, as the text ``val/<task>/examples``.

    Another view than the whole embedding is shown as ``val/<task>/examples/<view>``, with the scores by which it ranks.
    For tasks that have ``examples(metric, count, top)``, as :class:`~lightning_jv5.tasks.RetrievalTask` has.

    Args:
        count: Queries to show.
        top: Documents to show of each.
        dim: Coordinates to keep; by default all.
        precision: How they are stored and compared: see :class:`~lightning_jv5.metrics.View`. Tasks that lack it are
            left out.

    Raises:
        ValueError: If a number is below 1, or there is no such precision.

    >>> RankedExamples(count=2).top
    3
    """

    def __init__(self, count: int = 5, top: int = 3, dim: int | None = None, precision: Precision = "float") -> None:
        if count < 1 or top < 1:
            raise ValueError(f"Got count {count} and top {top}; need at least 1 of both. Raise them.")
        self.count, self.top = count, top
        self.dim, self.precision = dim, precision
        self._view = View(dim, precision)

    def views(self) -> list[View]:
        """Return the view that ranks."""
        return [self._view]

    def finish(self, trainer: Trainer, pl_module: LightningModule, prefix: str, evaluation: Evaluation) -> None:
        """Show the examples of each task that has them."""
        for name, task in evaluation.tasks.items():
            find_examples = getattr(task, "examples", None)
            if find_examples is None or self.precision not in task.precisions:
                continue
            # On every rank: the metric merges what each has seen
            examples = find_examples(evaluation.metric(name, self._view), self.count, self.top)
            key = "/".join(filter(None, (prefix, name, "examples", self._view.name)))
            log_text(trainer, key, examples_list(examples), examples)


def examples_list(examples: Sequence[dict[str, Any]]) -> str:
    """Return examples as Markdown: each query above a numbered list, the hits marked.

    Not a table: TensorBoard squeezes short columns until their words break.

    Args:
        examples: As :meth:`~lightning_jv5.tasks.RetrievalTask.examples` returns them.

    >>> document = {"text": "Paris", "score": 0.75, "grade": 1, "relevant": True}
    >>> print(examples_list([{"query": "capital of France", "documents": [document]}]))
    **capital of France**
    <BLANKLINE>
    1. ✓ 0.750 Paris
    """
    blocks = []
    for example in examples:
        lines = [f"**{one_line(example['query'])}**", ""]
        for rank, document in enumerate(example["documents"], start=1):
            hit = "✓ " if document["relevant"] else ""
            score = document["score"]
            shown = f"{score:.3f}" if abs(score) < 2 else f"{score:.0f}"  # cosines, or whole numbers of sign bits
            lines.append(f"{rank}. {hit}{shown} {one_line(document['text'])}")
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def one_line(text: str) -> str:
    r"""Keep a text to one short line of Markdown whose characters mean themselves.

    >>> one_line("a *b*\n<c>")
    'a \\*b\\* &lt;c&gt;'
    """
    line = " ".join(text.split())
    if len(line) > _MOST_CHARACTERS:
        line = line[: _MOST_CHARACTERS - 1].rstrip() + "…"
    return _MARKDOWN.sub(r"\\\1", html.escape(line, quote=False)) or "(empty)"
