"""Pair classification: does a threshold on the cosine tell pairs that belong together from others?"""

from collections.abc import Sequence

from lightning_jv5.data.source import Source
from lightning_jv5.metrics.pair_classification import PAIR_MEASURES, PairClassification
from lightning_jv5.metrics.views import Precision
from lightning_jv5.tasks.columns import group_column, text_column, truth_column
from lightning_jv5.tasks.whole_set import DistinctTexts, Role, WholeSetTask


class PairClassificationTask(WholeSetTask):
    """Tell pairs that belong together (duplicates, paraphrases) from others by their cosine, as mteb does.

    The protocol is that of ``AbsTaskPairClassification`` in https://github.com/embeddings-benchmark/mteb, version 2,
    for cosines: ``ap`` is the average precision of the pairs ordered by cosine (mteb's ``cosine_ap``), ``accuracy`` and
    ``f1`` are those of the best threshold. A text that is in several pairs is encoded once. In an asymmetric view
    ``text1`` is the query and ``text2`` the document that was stored.

    Args:
        pairs: Rows with ``text1``, ``text2`` and ``label``: 1 or true where they belong together, else 0 or false.
        main_metric: ``"ap"``, ``"accuracy"`` or ``"f1"``.
        role: Whose prompt all texts get: ``"query"`` or ``"document"``.
        group: Column that names each pair's group, such as its language; the metric's ``breakdown()`` has the measures
            of every group with pairs of both classes.

    Raises:
        ValueError: If there is no such measure or role; when loading, if a column is missing, a label is something
            else, or all pairs are of one class.

    >>> from datasets import Dataset
    >>> class Animals(Source):
    ...     def load(self):
    ...         return Dataset.from_dict({"text1": ["cat", "cat"], "text2": ["tiger", "pen"], "label": [1, 0]})
    >>> task = PairClassificationTask(Animals())
    >>> task.prepare()
    >>> task.parts()
    [TaskPart(role='document', texts=['cat', 'tiger', 'pen'], sharded=True)]
    """

    precisions: Sequence[Precision] = ("float", "int8", "binary", "asymmetric")

    def __init__(
        self, pairs: Source, *, main_metric: str = "ap", role: Role = "document", group: str | None = None
    ) -> None:
        super().__init__(main_metric, PAIR_MEASURES, role)
        self.pairs, self.group = pairs, group

    def load(self) -> tuple[list[str], PairClassification]:
        """Read the pairs."""
        rows = self.pairs.load()
        texts = DistinctTexts(*(text_column(rows, name, "pairs") for name in ("text1", "text2")))
        labels = truth_column(rows, "pairs")
        if len(set(labels)) < 2:
            raise ValueError(
                f"Got {len(labels)} pairs whose labels are all {int(labels[0])}; need some of both classes, as there "
                "is nothing to tell apart. Check the column of labels, or take more rows."
            )
        groups = None if self.group is None else group_column(rows, self.group, "pairs")
        pairs = list(zip(*texts.rows, strict=True))
        return texts.texts, PairClassification(pairs, labels, text_count=len(texts.texts), groups=groups)
