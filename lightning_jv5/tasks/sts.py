"""Semantic textual similarity: do cosines order pairs of texts as people do?"""

from collections.abc import Sequence

from lightning_jv5.data.source import Source
from lightning_jv5.metrics.correlation import CORRELATIONS, CosineCorrelation
from lightning_jv5.metrics.views import Precision
from lightning_jv5.tasks.columns import group_column, score_column, text_column
from lightning_jv5.tasks.whole_set import DistinctTexts, Role, WholeSetTask


class STSTask(WholeSetTask):
    """Correlate the cosine of two texts with the score that people gave them, as mteb's ``AbsTaskSTS`` does.

    Measures are ``spearman`` (of ranks; ties get the mean of their ranks) and ``pearson``, in [-1, 1]; 0 where all
    cosines are equal. A text that is in several pairs is encoded once. In an asymmetric view ``text1`` is the query and
    ``text2`` the document that was stored.

    Args:
        pairs: Rows with ``text1``, ``text2`` and ``score``, on any scale; higher is more similar.
        main_metric: ``"spearman"`` or ``"pearson"``.
        role: Whose prompt all texts get: ``"query"`` or ``"document"``.
        group: Column that names each pair's group, such as its language; the metric's ``breakdown()`` has the measures
            of every group of two pairs or more whose scores are not all equal.

    Raises:
        ValueError: If there is no such measure or role; when loading, if a column is missing, a score is not a finite
            number, there are fewer than two rows, or all scores are equal.

    >>> from datasets import Dataset
    >>> class Animals(Source):
    ...     def load(self):
    ...         return Dataset.from_dict({"text1": ["cat", "cat"], "text2": ["tiger", "pen"], "score": [4.0, 0.5]})
    >>> task = STSTask(Animals())
    >>> task.prepare()
    >>> task.parts()
    [TaskPart(role='document', texts=['cat', 'tiger', 'pen'], sharded=True)]
    """

    precisions: Sequence[Precision] = ("float", "int8", "binary", "asymmetric")

    def __init__(
        self, pairs: Source, *, main_metric: str = "spearman", role: Role = "document", group: str | None = None
    ) -> None:
        super().__init__(main_metric, CORRELATIONS, role)
        self.pairs, self.group = pairs, group

    def load(self) -> tuple[list[str], CosineCorrelation]:
        """Read the pairs."""
        rows = self.pairs.load()
        texts = DistinctTexts(*(text_column(rows, name, "pairs") for name in ("text1", "text2")))
        scores = score_column(rows, "pairs")
        if len(set(scores)) < 2:
            raise ValueError(
                f"Got {len(scores)} pairs whose scores are all {scores[0]}; need two different scores, as nothing "
                "correlates with a constant. Check the column of scores, or take more rows."
            )
        pairs = list(zip(*texts.rows, strict=True))
        groups = None if self.group is None else group_column(rows, self.group, "pairs")
        return texts.texts, CosineCorrelation(pairs, scores, text_count=len(texts.texts), groups=groups)
