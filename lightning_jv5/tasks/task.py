"""What the evaluation loop knows about a task: which texts to encode, in which order, and what to feed with them."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from lightning_jv5.metrics.streaming import StreamingMetric
from lightning_jv5.metrics.views import PRECISIONS, Precision, View
from lightning_jv5.rebuildable import Rebuildable


@dataclass
class TaskPart:
    """One column of texts of a task.

    Attributes:
        role: ``"query"`` or ``"document"``: which prompt to use, and what the metric does with the embeddings.
        texts: The texts; those without any content are empty and keep their place.
        sharded: Whether ranks divide the texts among them; if not, every rank encodes them all.
    """

    role: str
    texts: Sequence[str]
    sharded: bool


@dataclass
class EmbeddedTexts:
    """What a validation step returns: a batch of one part of one task, encoded.

    Attributes:
        embeddings: Whole embeddings; shape ``(texts, dim)``.
        rows: Position of each text in its part; int64, shape ``(texts,)``.
        task: Name of the task.
        role: Role of the part.
    """

    embeddings: Tensor
    rows: Tensor
    task: str
    role: str


class EvaluationTask(Rebuildable, ABC):
    """A data set and how it is scored. The texts are encoded once; each view of them has a metric of its own.

    Attributes:
        main_metric: The measure that stands for the task, as a key of what its metric computes.
        precisions: Precisions of a view that say something of the task; it is scored in no other.
    """

    main_metric: str
    precisions: Sequence[Precision] = PRECISIONS

    @abstractmethod
    def prepare(self) -> None:
        """Load the data, if that has not been done. The same on every rank."""

    @abstractmethod
    def parts(self) -> list[TaskPart]:
        """Return the texts, in the order in which they must be encoded. Needs :meth:`prepare`."""

    def labels(self, role: str) -> Sequence[str] | None:
        """Return a label of each text of the part of this role, for people to look at; by default there are none."""
        return None

    @abstractmethod
    def metric(self, view: View | None = None) -> StreamingMetric:
        """Return a new metric, to be fed with whole embeddings of the parts in their order. Needs :meth:`prepare`.

        Args:
            view: How it reads them; by default they are taken as they are.
        """
