"""How often the nearest of all targets is a text's own translation, as mteb measures it."""

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_jv5.data.nearest import nearest
from lightning_jv5.metrics.groups import rows_by_group
from lightning_jv5.metrics.whole_set import WholeSetMetric

MINING_MEASURES = ("f1", "accuracy", "precision", "recall")
RESCORED_TARGETS = 100
"""How many targets sign bits find, for floats to order."""

_TARGETS_PER_TILE = 4096
_RESCORED_SOURCES = 256  # at once: with 100 targets of 384 coordinates each, 79 MB


def mining_measures(found: Tensor) -> dict[str, float]:
    """Measure how many sources found their own target, that of their row.

    Every row is a class of its own. Precision, recall and F1 are averages over these classes, as of
    ``AbsTaskBitextMining`` in https://github.com/embeddings-benchmark/mteb (scikit-learn's, weighted): a target that
    several sources find has a lower precision. Recall is then the accuracy.

    Args:
        found: Row of the target that each source found; int64, shape ``(rows,)``.

    Returns:
        ``f1``, ``accuracy``, ``precision`` and ``recall``, in [0, 1].

    >>> mining_measures(torch.tensor([0, 0, 2, 3]))
    {'f1': 0.6666666666666666, 'accuracy': 0.75, 'precision': 0.625, 'recall': 0.75}
    """
    is_own = (found == torch.arange(len(found))).double()
    times = torch.bincount(found, minlength=len(found)).double()
    accuracy = float(is_own.mean())
    return {
        "f1": float((2 * is_own / (times + 1)).mean()),
        "accuracy": accuracy,
        "precision": float((is_own / times.clamp(min=1)).mean()),
        "recall": accuracy,
    }


class BitextMining(WholeSetMetric):
    """:func:`mining_measures` of the targets with the highest dot product, of those that tie the first.

    With a view it is the cosine; without one, give embeddings of unit length.

    Args:
        pairs: Source and target of each row, as rows among the texts.
        text_count: Number of texts.
        groups: Group of each row, None for one in none. In :meth:`breakdown` the sources of a group search its targets
            alone.

    Raises:
        ValueError: If there are no pairs, or not as many groups.

    >>> metric = BitextMining([(0, 1), (2, 3)], text_count=4)
    >>> metric.update("document", torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [0.6, 0.8]]), torch.arange(4))
    >>> metric.compute()["f1"]
    tensor(1.)
    """

    def __init__(
        self, pairs: Sequence[tuple[int, int]], *, text_count: int, groups: Sequence[str | None] | None = None
    ) -> None:
        super().__init__(text_count, MINING_MEASURES)
        if not pairs:
            raise ValueError("Got no pairs; need at least one. Check the task's data.")
        self._left, self._right = torch.tensor(pairs, dtype=torch.int64).T
        self._rows_of_group = {} if groups is None else rows_by_group(groups, len(pairs))

    def score(self, embeddings: Tensor) -> dict[str, float]:
        """Return ``f1``, ``accuracy``, ``precision`` and ``recall``, in [0, 1]."""
        query, document = self.query(embeddings), self.document(embeddings)

        def found(sources: Tensor, targets: Tensor) -> Tensor:
            """Which of the targets each source finds; both are rows of ``embeddings``."""
            tiles = (document[some] for some in torch.split(targets, _TARGETS_PER_TILE))
            if self.view is None or self.view.precision != "rescored":
                return nearest(query[sources], tiles, depth=1).rows.squeeze(1)
            candidates = nearest(query[sources], tiles, depth=min(RESCORED_TARGETS, len(targets))).rows
            return _rescored(embeddings, sources, targets, candidates)

        self.groups = {
            group: mining_measures(found(self._left[rows], self._right[rows]))
            for group, rows in self._rows_of_group.items()
        }
        return mining_measures(found(self._left, self._right))


def _rescored(embeddings: Tensor, sources: Tensor, targets: Tensor, found: Tensor) -> Tensor:
    """The best by cosine of the targets that were found, shape ``(sources, found)``; of those that tie, the first."""
    found = found.sort(dim=1).values
    best = []
    parts = (torch.split(rows, _RESCORED_SOURCES) for rows in (sources, found))
    for some, theirs in zip(*parts, strict=True):
        cosines = torch.einsum("sd,sfd->sf", embeddings[some], embeddings[targets[theirs]])
        best.append(theirs.gather(1, cosines.argmax(1, keepdim=True)).squeeze(1))
    return torch.cat(best)
