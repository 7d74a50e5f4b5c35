"""Bitext mining: is the nearest of all targets a text's own translation?"""

from collections.abc import Sequence

from lightning_jv5.data.source import Source
from lightning_jv5.metrics.bitext_mining import MINING_MEASURES, BitextMining
from lightning_jv5.metrics.views import PRECISIONS, Precision
from lightning_jv5.tasks.columns import group_column, text_column
from lightning_jv5.tasks.whole_set import DistinctTexts, Role, WholeSetTask


class BitextMiningTask(WholeSetTask):
    """Find each text's translation among those of all rows, by cosine, as mteb does.

    The protocol is that of ``AbsTaskBitextMining`` in https://github.com/embeddings-benchmark/mteb, version 2: the
    nearest ``text2`` must be that of the row. A ``text2`` that is in several rows is a target of each; the first of
    them is found, as the first of any that tie, and the others count as missed. Measures are ``f1`` (mteb's main one),
    ``precision`` and ``recall``, averages over the targets, and ``accuracy``, which equals ``recall``. A text is
    encoded once, wherever it stands. In a rescored view sign bits find 100 targets, and floats choose among them.

    Args:
        pairs: Rows with ``text1``, which searches, and ``text2``, which is to be found.
        main_metric: ``"f1"``, ``"accuracy"``, ``"precision"`` or ``"recall"``.
        role: Whose prompt all texts get: ``"query"`` or ``"document"``.
        group: Column that names each row's group, such as its pair of languages. In the metric's ``breakdown()`` every
            group is searched by itself, as mteb searches each pair of languages; the main measures search all.

    Raises:
        ValueError: If there is no such measure or role; when loading, if a column is missing or there are no rows.

    >>> from datasets import Dataset
    >>> class Animals(Source):
    ...     def load(self):
    ...         return Dataset.from_dict({"text1": ["cat", "dog"], "text2": ["Katze", "Hund"]})
    >>> task = BitextMiningTask(Animals())
    >>> task.prepare()
    >>> task.parts()
    [TaskPart(role='document', texts=['cat', 'dog', 'Katze', 'Hund'], sharded=True)]
    """

    precisions: Sequence[Precision] = PRECISIONS

    def __init__(
        self, pairs: Source, *, main_metric: str = "f1", role: Role = "document", group: str | None = None
    ) -> None:
        super().__init__(main_metric, MINING_MEASURES, role)
        self.pairs, self.group = pairs, group

    def load(self) -> tuple[list[str], BitextMining]:
        """Read the pairs."""
        rows = self.pairs.load()
        texts = DistinctTexts(*(text_column(rows, name, "pairs") for name in ("text1", "text2")))
        groups = None if self.group is None else group_column(rows, self.group, "pairs")
        return texts.texts, BitextMining(
            list(zip(*texts.rows, strict=True)), text_count=len(texts.texts), groups=groups
        )
