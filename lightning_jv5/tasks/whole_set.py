"""Tasks that are scored on the embeddings of all their texts at once: each different text is encoded once."""

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from typing import Literal

from lightning_jv5.metrics.views import Precision, View
from lightning_jv5.metrics.whole_set import WholeSetMetric
from lightning_jv5.tasks.columns import rows_of_distinct
from lightning_jv5.tasks.task import EvaluationTask, TaskPart

Role = Literal["query", "document"]


class DistinctTexts:
    """Different texts, and where among them those of some columns are.

    >>> texts = DistinctTexts(["a", "b"], ["b", "c"])
    >>> texts.texts, texts.rows
    (['a', 'b', 'c'], [[0, 1], [1, 2]])
    """

    def __init__(self, *columns: Iterable[str]) -> None:
        kept = [list(column) for column in columns]
        row_of = rows_of_distinct(text for column in kept for text in column)
        self.texts = list(row_of)
        self.rows = [[row_of[text] for text in column] for column in kept]

    def labels(self, *columns: Iterable[object]) -> list[str]:
        """Return the label of each different text, that of the first row where it is.

        >>> DistinctTexts(["a", "b"], ["b", "c"]).labels([0, 1], [2, 3])
        ['0', '1', '3']
        """
        found: dict[int, str] = {}
        for rows, column in zip(self.rows, columns, strict=True):
            for row, label in zip(rows, column, strict=True):
                found.setdefault(row, str(label))
        return [found[row] for row in range(len(self.texts))]


class WholeSetTask(EvaluationTask):
    """A task with a single part, which ranks divide: the different texts, all encoded in the same role.

    Such tasks fit or cluster what was stored. One that compares a text with a stored one adds ``"asymmetric"`` to its
    :attr:`precisions`, one that searches ``"rescored"`` too.

    Args:
        main_metric: The measure that stands for the task.
        measures: Those that there are.
        role: Whose prompt the texts get.

    Raises:
        ValueError: If there is no such measure or role.
    """

    precisions: Sequence[Precision] = ("float", "int8", "binary")

    def __init__(self, main_metric: str, measures: Sequence[str], role: Role) -> None:
        if main_metric not in measures:
            raise ValueError(
                f"Got main_metric {main_metric!r}; need one of {', '.join(measures)}. Name one of these measures."
            )
        if role not in ("query", "document"):
            raise ValueError(f"Got role {role!r}; need 'query' or 'document'. Name whose prompt the texts get.")
        self.main_metric, self.role = main_metric, role
        self._metric: WholeSetMetric | None = None
        self._texts: list[str] = []
        self._labels: list[str] | None = None  # set by :meth:`load` where there are some

    @abstractmethod
    def load(self) -> tuple[list[str], WholeSetMetric]:
        """Read the data; return the different texts that need encoding, and a metric of them."""

    def prepare(self) -> None:
        """Load the data, if that has not been done."""
        if self._metric is None:
            self._texts, self._metric = self.load()

    def _prepared(self) -> WholeSetMetric:
        if self._metric is None:
            raise ValueError("Got a task without data; need it loaded. Call prepare() first.")
        return self._metric

    def parts(self) -> list[TaskPart]:
        """Return the texts, to be divided among ranks."""
        self._prepared()
        return [TaskPart(self.role, self._texts, sharded=True)]

    def labels(self, role: str) -> Sequence[str] | None:
        """Return a label of each text, if the task has labels."""
        self._prepared()
        return self._labels

    def metric(self, view: View | None = None) -> WholeSetMetric:
        """Return a new metric of this view."""
        metric = self._prepared().clone()
        assert isinstance(metric, WholeSetMetric)
        metric.view = view
        return metric
