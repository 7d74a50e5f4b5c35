"""What a loader hands to the module: ragged token ids by role, with nothing padded."""

import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor

ONLY_SET = "train"  # the name of a data set that was given none


@dataclass
class RaggedTexts:
    """Tokenised texts laid end to end, without padding.

    Attributes:
        token_ids: Token ids of all texts, one after the other; int64, shape ``(total_tokens,)``.
        lengths: Number of tokens of each text; int64, shape ``(texts,)``; sums to ``total_tokens``.

    >>> texts = RaggedTexts.from_lists([[101, 7, 102], [101, 102]])
    >>> len(texts), texts.token_ids.tolist()
    (2, [101, 7, 102, 101, 102])
    """

    token_ids: Tensor
    lengths: Tensor

    @classmethod
    def from_lists(cls, token_ids: Sequence[Sequence[int]]) -> "RaggedTexts":
        """Lay lists of token ids end to end."""
        lengths = torch.tensor([len(ids) for ids in token_ids], dtype=torch.int64)
        flat = [token_id for ids in token_ids for token_id in ids]
        return cls(torch.tensor(flat, dtype=torch.int64), lengths)

    @classmethod
    def cat(cls, parts: Sequence["RaggedTexts"]) -> "RaggedTexts":
        """Join several into one; ``split`` of the embeddings by ``len(part)`` undoes it."""
        return cls(torch.cat([part.token_ids for part in parts]), torch.cat([part.lengths for part in parts]))

    def __len__(self) -> int:
        return len(self.lengths)

    def ids(self) -> Tensor:
        """Return a number for each text, int64, shape ``(texts,)``: equal for equal tokens, in every process.

        64 bits of a hash, so that different texts of a batch of 10^5 share one with a chance below 10^-9.

        >>> first, second, third = RaggedTexts.from_lists([[5, 6], [5], [5, 6]]).ids().tolist()
        >>> first == third, first == second
        (True, False)
        """
        tokens = self.token_ids.numpy()
        bounds = itertools.pairwise([0, *self.lengths.cumsum(0).tolist()])
        hashes = [hashlib.blake2b(tokens[start:end].tobytes(), digest_size=8).digest() for start, end in bounds]
        return torch.frombuffer(bytearray(b"".join(hashes)), dtype=torch.int64) if hashes else self.lengths.new_empty(0)

    def pin_memory(self) -> "RaggedTexts":
        """Torch pins a dataclass only where it says how."""
        return RaggedTexts(self.token_ids.pin_memory(), self.lengths.pin_memory())


@dataclass
class TextBatch:
    """One training step's texts and what is known about them. Mutable: Lightning moves its tensors in place.

    Attributes:
        texts: The student's tokens by role: ``"query"``, ``"document"``, ``"negatives"``.
        negative_counts: How many of ``texts["negatives"]`` belong to each query, in order; shape ``(batch,)``.
        teacher_texts: The online teacher's tokens by role; empty where vectors are there already.
        teacher_vectors: Precomputed teacher embeddings by role; shape ``(texts of the role, teacher_dim)``.
        text_ids: A number for each of ``texts`` by role, equal for equal tokens: what tells false negatives.
        score: Graded similarity of each query and document, for scored pairs; shape ``(batch,)``.
        label: Class of each query; shape ``(batch,)``.
        negatives_label: Class of each negative.
        dataset: Name of the data set that the step was drawn from.
        step: Which micro-batch of the run this is.
        dataset_batch: Which batch of its data set this is: how often the set has been drawn before.
        cut_texts: How many of ``texts`` were longer than the limit.
        stream: For a stream: where it can be taken up again to come to what follows this batch; plain data.
    """

    texts: dict[str, RaggedTexts]
    negative_counts: Tensor | None = None
    teacher_texts: dict[str, RaggedTexts] = field(default_factory=dict)
    teacher_vectors: dict[str, Tensor] = field(default_factory=dict)
    text_ids: dict[str, Tensor] = field(default_factory=dict)
    score: Tensor | None = None
    label: Tensor | None = None
    negatives_label: Tensor | None = None
    dataset: str = ONLY_SET
    step: int = 0
    dataset_batch: int = 0
    cut_texts: int = 0
    stream: dict[str, Any] | None = None

    @property
    def text_count(self) -> int:
        """Number of texts that the student encodes in this step: what every ``log`` passes as ``batch_size``."""
        return sum(len(texts) for texts in self.texts.values())

    def pin_memory(self) -> "TextBatch":
        """Pin every tensor, for asynchronous copies to the device."""
        return replace(self, **{field.name: _pinned(getattr(self, field.name)) for field in fields(self)})


@dataclass
class EvaluationBatch:
    """A slice of one column of an evaluation task, or of a prediction corpus.

    Attributes:
        texts: The student's tokens.
        rows: Position of each text in its column; int64, shape ``(texts,)``.
        task: Name of the evaluation task (the key in ``data.val``).
        role: ``"query"`` or ``"document"``: which prompt was used, and what the metric does with the embeddings.
    """

    texts: RaggedTexts
    rows: Tensor
    task: str
    role: str

    def pin_memory(self) -> "EvaluationBatch":
        """Pin every tensor, for asynchronous copies to the device."""
        return EvaluationBatch(self.texts.pin_memory(), self.rows.pin_memory(), self.task, self.role)


def _pinned(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _pinned(part) for name, part in value.items()}
    return value.pin_memory() if hasattr(value, "pin_memory") else value
