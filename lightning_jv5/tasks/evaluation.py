"""One pass over the texts of several tasks that scores every view of them."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch import distributed as dist
from tqdm.auto import tqdm

from lightning_jv5.data.longest_first import longest_first, texts_at
from lightning_jv5.metrics.streaming import StreamingMetric
from lightning_jv5.metrics.views import View
from lightning_jv5.tasks.task import EmbeddedTexts, EvaluationTask, TaskPart


@dataclass(frozen=True)
class Score:
    """What one view of the embeddings achieves at one task.

    Attributes:
        task: Name of the task.
        view: The view.
        values: Measures by name.
        complete: Whether all texts were seen. If not, the values must not be compared with others, nor monitored.
        main_metric: The measure that stands for the task; empty where that is not known.
        width: Coordinates of whole embeddings, where they are known.

    >>> score = Score("sts", View(precision="binary"), {"spearman": 0.5}, complete=True, width=12)
    >>> score.to_plain()["bytes_per_vector"]
    2
    """

    task: str
    view: View
    values: dict[str, float]
    complete: bool
    main_metric: str = ""
    width: int | None = None

    @property
    def main(self) -> str:
        """The main measure's name, else that of the first."""
        return self.main_metric or next(iter(self.values))

    @property
    def dim(self) -> int | None:
        """Coordinates that the view keeps."""
        return self.width if self.view.dim is None else self.view.dim

    @property
    def bytes_per_vector(self) -> int | None:
        """What a stored vector takes, where :attr:`dim` is known."""
        return None if self.dim is None else self.view.bytes_per_vector(self.dim)

    def to_plain(self) -> dict[str, Any]:
        """Return plain data, for JSON, which has no NaN: it becomes None."""
        return {
            "task": self.task,
            "dim": self.dim,
            "precision": self.view.precision,
            "bytes_per_vector": self.bytes_per_vector,
            "main_metric": self.main,
            "values": {name: value if math.isfinite(value) else None for name, value in self.values.items()},
            "complete": self.complete,
        }


class Evaluation:
    """The metrics of several tasks, one for each view, fed by whoever encodes the texts.

    A task has no metric of a precision that says nothing of it: of its ``precisions``.

    Args:
        tasks: Prepared tasks by name.
        views: Views to score, each of another name.
        device: Where the metrics live; by default where the embeddings are.

    Attributes:
        width: Coordinates of the whole embeddings; 0 before there are any.

    Raises:
        ValueError: If there are no tasks or views, or two views are the same.
    """

    def __init__(
        self,
        tasks: Mapping[str, EvaluationTask],
        views: Sequence[View] = (View(),),
        device: torch.device | str | None = None,
    ) -> None:
        if not tasks or not views or len(set(views)) != len(views):
            raise ValueError(
                f"Got tasks {list(tasks)} and views {[view.name or 'whole' for view in views]}; need at least one of "
                "both, and no view twice. Correct the lists."
            )
        self.tasks, self.views, self.device = dict(tasks), tuple(views), device
        self.width = 0
        self._metrics = {
            (name, view): task.metric(view)
            for name, task in self.tasks.items()
            for view in self.views
            if view.precision in task.precisions
        }
        if device is not None:
            for metric in self._metrics.values():
                metric.to(device)

    def metric(self, task: str, view: View) -> StreamingMetric:
        """Return the metric of one view of a task, for what it offers beyond its scores (rankings, for instance).

        Raises:
            ValueError: If there is none.
        """
        if (task, view) not in self._metrics:
            pairs = ", ".join(f"{name} {key.name or 'whole'}" for name, key in self._metrics)
            raise ValueError(
                f"Got task {task!r} and view {view}; this evaluation scores {pairs}. Use one of its own tasks and "
                "views; a task is scored in its precisions alone."
            )
        return self._metrics[task, view]

    def update(self, embedded: EmbeddedTexts) -> None:
        """Feed each view of these embeddings to its metric.

        Raises:
            ValueError: If the task is unknown, or the embeddings do not fit a view.
        """
        if embedded.task not in self.tasks:
            raise ValueError(
                f"Got embeddings of the task {embedded.task!r}; need one of {list(self.tasks)}. Use the names of the "
                "evaluation's own tasks."
            )
        self.width = embedded.embeddings.shape[-1]
        for (task, _), metric in self._metrics.items():
            if task != embedded.task:
                continue
            if self.device is None and metric.device != embedded.embeddings.device:
                metric.to(embedded.embeddings.device)
            metric.update(embedded.role, embedded.embeddings, embedded.rows)

    def compute(self, views: Sequence[View] | None = None, *, progress: bool = False) -> list[Score]:
        """Return the score of each view of each task that has it, task by task. Merges over ranks: every rank calls it.

        What has been computed is kept until more texts arrive: several may ask, each for views of its own.

        Args:
            views: Views of the evaluation to score, in the order in which they are returned; by default all.
            progress: Whether to show a bar over the views, if they take over two seconds (as classifiers do).

        Raises:
            ValueError: If the evaluation lacks a view.
        """
        wanted = self.views if views is None else views
        if not set(wanted) <= set(self.views):
            missing = ", ".join(repr(view.name or "whole") for view in wanted if view not in self.views)
            raise ValueError(
                f"Got the view {missing}; need some of {[view.name or 'whole' for view in self.views]}. Give it to the "
                "evaluation before the texts come."
            )
        keys = [(task, view) for task in self.tasks for view in wanted if (task, view) in self._metrics]
        asked = [(key, self._metrics[key]) for key in keys]
        bar = tqdm(asked, desc="Scoring", unit="view", delay=2, leave=False, disable=not progress)
        return [
            Score(
                task=task,
                view=view,
                values={name: float(value) for name, value in metric.compute().items()},
                complete=metric.is_complete(),
                main_metric=self.tasks[task].main_metric,
                width=self.width or None,
            )
            for (task, view), metric in bar
        ]

    def reset(self) -> None:
        """Forget all texts, for the next pass."""
        for metric in self._metrics.values():
            metric.reset()


def evaluate(
    encode: Callable[[list[str], str], Tensor | NDArray[Any]],
    tasks: Mapping[str, EvaluationTask],
    views: Sequence[View] = (View(),),
    *,
    progress: bool = True,
    description: str = "",
    batch_texts: int = 256,
    device: torch.device | str | None = None,
) -> list[Score]:
    """Score an encoder without a Trainer. Where ``torch.distributed`` is initialised, all ranks share the documents.

    Args:
        encode: From a list of texts and their role (``"query"`` or ``"document"``) to embeddings, a tensor or an array
            of shape ``(texts, dim)``. All ranks call it equally often, so some may call it without texts.
        tasks: Tasks by name; they are prepared here.
        views: Views to score.
        progress: Whether rank 0 shows a bar over the texts that it encodes.
        description: Text beside the bar.
        batch_texts: Most texts in one call of ``encode``; they are of similar length, the longest first.
        device: Where the metrics live; by default where the embeddings are.

    Returns:
        The score of each view of each task; the same on every rank.

    Raises:
        ValueError: If ``encode`` does not return one embedding per text, or they do not fit a view.

    >>> from lightning_jv5.tasks.retrieval import ReadyRetrieval, RetrievalData
    >>> data = RetrievalData(["q"], ["ab"], ["d1", "d2"], ["aab", "bbb"], {"q": {"d1": 1}})
    >>> def count_letters(texts, role):
    ...     return torch.tensor([[float(text.count(letter)) for letter in "ab"] for text in texts])
    >>> [score] = evaluate(count_letters, {"letters": ReadyRetrieval(data)}, progress=False)
    >>> score.values["ndcg@10"], score.complete
    (1.0, True)

    What encodes may be an embedder, one of its adapters, or another library's model::

        evaluate(Embedder("models/small").encode, tasks)
        evaluate(functools.partial(embedder.encode, task="retrieval"), tasks)
        theirs = SentenceTransformer("models/small")
        encoders = {"query": theirs.encode_query, "document": theirs.encode_document}
        evaluate(lambda texts, role: encoders[role](texts), tasks)
    """
    if batch_texts < 1:
        raise ValueError(f"Got batch_texts={batch_texts}; need at least 1. Raise it.")
    for name, task in tasks.items():
        if views and not any(view.precision in task.precisions for view in views):
            given = ", ".join(dict.fromkeys(view.precision for view in views))
            raise ValueError(
                f"Got views of the precisions {given} for the task {name!r}, which is scored in "
                f"{', '.join(task.precisions)}. Add such a view, or take the task out."
            )
        task.prepare()
    evaluation = Evaluation(tasks, views, device)
    rank, ranks = (dist.get_rank(), dist.get_world_size()) if dist.is_available() and dist.is_initialized() else (0, 1)
    work = [(name, part, _own_rows(part, rank, ranks)) for name, task in tasks.items() for part in task.parts()]
    total = sum(len(rows) for _, _, rows in work)
    with (
        torch.no_grad(),
        tqdm(total=total, desc=description or None, unit="text", disable=not progress or rank > 0) as bar,
    ):
        for name, part, rows in work:
            most = -(-len(part.texts) // ranks) if part.sharded else len(rows)
            for start in range(0, most, batch_texts):
                batch = rows[start : start + batch_texts].tolist()
                embeddings = torch.as_tensor(encode(texts_at(part.texts, batch), part.role))
                if embeddings.ndim != 2 or len(embeddings) != len(batch):
                    raise ValueError(
                        f"Got embeddings {tuple(embeddings.shape)} for {len(batch)} texts; need (texts, dim). "
                        "Let encode return one embedding per text, in their order."
                    )
                evaluation.update(EmbeddedTexts(embeddings, torch.tensor(batch, dtype=torch.int64), name, part.role))
                bar.update(len(batch))
    return evaluation.compute(progress=progress and rank == 0)


def _own_rows(part: TaskPart, rank: int, ranks: int) -> NDArray[np.int64]:
    """Rows that this rank encodes, longest text first: every n-th, so that all ranks have as much to do."""
    rows = longest_first(part.texts)
    return rows[rank::ranks] if part.sharded else rows
