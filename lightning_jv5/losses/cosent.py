"""CoSENT: pairs that people find more alike should have the higher cosine; only the order of the scores counts."""

import torch
from torch import Tensor

from lightning_jv5.losses.batch import EmbeddingBatch
from lightning_jv5.losses.loss import Loss
from lightning_jv5.losses.schedule import Schedule
from lightning_jv5.losses.temperature import LearnableTemperature, check_temperature, temperature_source
from lightning_jv5.losses.unit import check_rows, unit_rows


def cosent(query: Tensor, document: Tensor, score: Tensor, *, temperature: float | Tensor) -> Tensor:
    """Order pairs by their scores: arXiv:2602.15547 eq. 5, in the form of https://kexue.fm/archives/8847.

    ``ln( 1 + sum_{s_i > s_j} exp( ( cos(x_j, y_j) - cos(x_i, y_i) ) / temperature ) )``. The print of eq. 5 puts the
    temperature under a difference of exponentials; this is the published CoSENT. Sorting by score turns the sum over
    pairs of pairs into a running log-sum-exp: ``O(batch log batch)``, and no exponential overflows.

    Args:
        query: Embeddings of any length; shape ``(batch, dim)``.
        document: Row ``i`` is the other text of pair ``i``; shape ``(batch, dim)``.
        score: How alike the texts of a pair are, in any unit; shape ``(batch,)``. Pairs of equal scores do not compete.
        temperature: Divides the cosines (unitless); smaller is sharper. A tensor may have a gradient.

    Returns:
        The loss of the batch, in nats: a scalar; 0 where all scores are equal.

    Raises:
        ValueError: If shapes do not fit or, on the CPU, a number is not finite.

    >>> z = torch.eye(2)
    >>> cosent(z, z, torch.tensor([0.0, 1.0]), temperature=1.0)  # equal cosines, other scores: ln(1 + exp(0))
    tensor(0.6931)
    """
    check_rows(query=query, document=document)
    check_temperature(temperature)
    if query.shape != document.shape or score.shape != query.shape[:1]:
        raise ValueError(
            f"Got query {tuple(query.shape)}, document {tuple(document.shape)}, score {tuple(score.shape)}; need "
            "(batch, dim) twice and (batch,): one score for each pair."
        )
    if score.device.type == "cpu" and not bool(score.isfinite().all()):
        bad = (~score.isfinite()).nonzero().flatten().tolist()
        raise ValueError(f"Got {len(bad)} scores that are not finite, the first in row {bad[0]}; correct the data set.")
    with torch.autocast(query.device.type, enabled=False):
        logits = (unit_rows(query) * unit_rows(document)).sum(1) / temperature
        order = score.argsort(stable=True)
        ordered, scores = logits[order], score[order]
        # log of the sum of exp(logit) over all pairs up to each; those with a lower score than pair i come first
        running = ordered.logcumsumexp(0)
        lower = torch.searchsorted(scores.contiguous(), scores.contiguous())
        against = torch.where(lower > 0, running[lower.clamp(min=1) - 1] - ordered, -torch.inf)
        return torch.cat([against.new_zeros(1), against]).logsumexp(0)


class CoSENT(Loss):
    """:func:`cosent` as a term of an objective; over the pairs of all ranks where the batch has been gathered.

    Args:
        temperature: A number, a :class:`~lightning_jv5.losses.Schedule`, or a
            :class:`~lightning_jv5.losses.LearnableTemperature`.

    Raises:
        ValueError: In a step, if the batch lacks documents or scores.

    >>> z = torch.eye(2)
    >>> CoSENT(temperature=1.0)(EmbeddingBatch(z, z, score=torch.tensor([0.0, 1.0])))
    tensor(0.6931)
    """

    def __init__(self, temperature: float | Schedule | LearnableTemperature = 0.05) -> None:
        super().__init__()
        self.temperature = temperature_source(temperature)

    def forward(self, batch: EmbeddingBatch) -> Tensor:
        """Return the loss of the batch."""
        pairs = batch.everywhere
        if pairs.document is None or pairs.score is None:
            missing = "documents" if pairs.document is None else "scores"
            raise ValueError(
                f"Got a batch of {batch.dataset!r} without {missing} to order pairs by; use a data set with the "
                "columns text1, text2 and score, or ByScore if only some batches have them."
            )
        return cosent(pairs.query, pairs.document, pairs.score, temperature=self.temperature.at(batch.step))

    def watched(self, step: int) -> dict[str, Tensor | float]:
        """Return the temperature where it changes."""
        return self.temperature.watched("temperature", step)
