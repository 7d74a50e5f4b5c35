"""Rows to batches: straight from Arrow buffers, without a Python object per token."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from lightning_jv5.data.batches import EvaluationBatch, RaggedTexts, TextBatch
from lightning_jv5.data.tokenized import TokenizationLike, ids_column

if TYPE_CHECKING:
    import datasets

TRAINING_ROLES = ("query", "document")


class TrainingRows(Dataset[TextBatch]):
    """Tokenised pairs as :class:`TextBatch`, one batch for each list of row numbers.

    Args:
        rows: Columns ``{role}_student_ids``; ``{role}_teacher_ids`` or ``{role}_teacher`` (vectors) where there is a
            teacher.
        name: Name of the data set, for logs and errors.
    """

    def __init__(self, rows: "datasets.Dataset", name: str = "train") -> None:
        self.rows = rows.with_format("arrow")
        self.name = name
        columns = set(rows.column_names)
        self.roles = [role for role in TRAINING_ROLES if ids_column(role, "student") in columns]
        self._vectors = [role for role in self.roles if f"{role}_teacher" in columns]
        self._teacher_ids = [role for role in self.roles if ids_column(role, "teacher") in columns]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, row: int) -> TextBatch:
        """Return a batch of one row."""
        return self.__getitems__([row])

    def __getitems__(self, rows: Sequence[int]) -> TextBatch:
        """Return the batch of these rows, in this order; torch's loader asks for a whole batch at once."""
        table = self.rows[list(rows)]
        texts = {role: _ragged(table[ids_column(role, "student")]) for role in self.roles}
        return TextBatch(
            texts=texts,
            text_ids={role: ragged.ids() for role, ragged in texts.items()},
            teacher_texts={role: _ragged(table[ids_column(role, "teacher")]) for role in self._teacher_ids},
            teacher_vectors={role: _vectors(table[f"{role}_teacher"]) for role in self._vectors},
            dataset=self.name,
        )


class EvaluationRows(Dataset[EvaluationBatch]):
    """A column of texts as :class:`EvaluationBatch`, tokenised as they are read.

    Args:
        texts: The whole column.
        rows: The positions in it that this process encodes.
        tokenization: The student's.
        role: Which prompt to use.
        task: Name of the task.
        places: Length of this data set, by default that of ``rows``. There is no text at places beyond them, and a
            batch may be empty: so every rank has as many batches as that with most rows.
    """

    def __init__(
        self,
        texts: Sequence[str],
        rows: Sequence[int],
        tokenization: TokenizationLike,
        *,
        role: str,
        task: str,
        places: int | None = None,
    ) -> None:
        self.texts, self.rows, self.tokenization = texts, rows, tokenization
        self.role, self.task = role, task
        self.places = len(rows) if places is None else places

    def __len__(self) -> int:
        return self.places

    def __getitem__(self, item: int) -> EvaluationBatch:
        """Return a batch of one text."""
        return self.__getitems__([item])

    def __getitems__(self, items: Sequence[int]) -> EvaluationBatch:
        """Return the batch of these texts."""
        rows = [self.rows[item] for item in items if item < len(self.rows)]
        token_ids = self.tokenization([self.texts[row] for row in rows], self.role)
        places = torch.tensor(rows, dtype=torch.int64)
        return EvaluationBatch(RaggedTexts.from_lists(token_ids), places, self.task, self.role)


def _ragged(column: Any) -> RaggedTexts:
    chunk = column.combine_chunks()
    # A copy: Arrow's memory is read-only, and autograd's embedding wants int64
    token_ids = torch.tensor(chunk.flatten().to_numpy(), dtype=torch.int64)
    lengths = torch.tensor(chunk.value_lengths().to_numpy(zero_copy_only=False), dtype=torch.int64)
    return RaggedTexts(token_ids, lengths)


def _vectors(column: Any) -> Tensor:
    chunk = column.combine_chunks()
    return torch.tensor(chunk.flatten().to_numpy(zero_copy_only=False).reshape(len(chunk), -1))
