"""Show what the student ranks first: a score says how good it is, examples say at what."""

import html
import re
from collections.abc import Sequence
from typing import Any

from lightning.pytorch import LightningModule, Trainer

from lightning_jv5.callbacks.report import log_text
from lightning_jv5.callbacks.view_evaluation import ViewEvaluation
from lightning_jv5.tasks import Evaluation, View

_MOST_CHARACTERS = 160
_MARKDOWN = re.compile(r"([\\`*_\[\]|~#])")


class RankedExamples(ViewEvaluation):
    """Show a few queries and what ranks first for them, as the text ``val/<task>/examples``.

    For tasks that have ``examples(metric, count, top)``, as :class:`~lightning_jv5.tasks.RetrievalTask` has.

    Args:
        count: Queries to show.
        top: Documents to show of each.

    Raises:
        ValueError: If either is below 1.

    >>> RankedExamples(count=2).top
    3
    """

    def __init__(self, count: int = 5, top: int = 3) -> None:
        if count < 1 or top < 1:
            raise ValueError(f"Got count {count} and top {top}; need at least 1 of both. Raise them.")
        self.count, self.top = count, top

    def views(self) -> list[View]:
        """Return the whole embedding."""
        return [View()]

    def finish(self, trainer: Trainer, pl_module: LightningModule, prefix: str, evaluation: Evaluation) -> None:
        """Show the examples of each task that has them."""
        for name, task in evaluation.tasks.items():
            find_examples = getattr(task, "examples", None)
            if find_examples is None:
                continue
            # On every rank: the metric merges what each has seen
            examples = find_examples(evaluation.metric(name, View()), self.count, self.top)
            log_text(trainer, f"{prefix}/{name}/examples", examples_table(examples), examples)


def examples_table(examples: Sequence[dict[str, Any]]) -> str:
    """Return examples as a Markdown table: a row per document, the hits marked.

    Args:
        examples: As :meth:`~lightning_jv5.tasks.RetrievalTask.examples` returns them.

    >>> document = {"text": "Paris", "score": 0.75, "grade": 1, "relevant": True}
    >>> print(examples_table([{"query": "capital of France", "documents": [document]}]))
    | query | rank | hit | cosine | document |
    |---|---:|:---:|---:|---|
    | **capital of France** | 1 | ✓ | 0.750 | Paris |
    """
    lines = ["| query | rank | hit | cosine | document |", "|---|---:|:---:|---:|---|"]
    for example in examples:
        for rank, document in enumerate(example["documents"], start=1):
            query = f"**{_in_cell(example['query'])}**" if rank == 1 else ""
            hit = "✓" if document["relevant"] else ""
            lines.append(f"| {query} | {rank} | {hit} | {document['score']:.3f} | {_in_cell(document['text'])} |")
    return "\n".join(lines)


def _in_cell(text: str) -> str:
    """Keep a text to one short line whose characters mean themselves."""
    line = " ".join(text.split())
    if len(line) > _MOST_CHARACTERS:
        line = line[: _MOST_CHARACTERS - 1].rstrip() + "…"
    return _MARKDOWN.sub(r"\\\1", html.escape(line, quote=False)) or "(empty)"
