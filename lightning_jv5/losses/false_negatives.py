"""Which candidates are not used as negatives, because they may well be answers."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_jv5.losses.unit import unit_rows


@dataclass(frozen=True)
class FalseNegatives:
    """What is known about the texts of a batch, by which some pairs of them are left out of a contrast.

    Two texts are left out as each other's negatives where any of these says so; what is None says nothing.

    Attributes:
        query_id: A number for each query's text, equal for equal texts: int64, shape ``(batch,)``. The document of a
            row with the same query is an answer to it, too.
        document_id: The same for the documents; texts of both kinds never share a number unless they are equal.
        negatives_id: The same for the hard negatives. One that equals a query's own document is an answer.
        label: Class of each row: texts of one class are no negatives of each other; shape ``(batch,)``.
        negatives_label: Class of each hard negative.
        query_teacher: Teacher embeddings of the queries; shape ``(batch, teacher_dim)``. With the next two and
            ``teacher_margin``: a candidate is left out if the teacher finds it more similar than
            ``teacher_margin`` plus the similarity of the query to its own document.
        document_teacher: Teacher embeddings of the documents.
        negatives_teacher: Teacher embeddings of the hard negatives.
        teacher_margin: A difference of cosines; below zero also drops what is nearly as similar. None: the teacher is
            not asked.

    Raises:
        ValueError: If ``teacher_margin`` is set and teacher embeddings of queries or documents are missing.
    """

    query_id: Tensor | None = None
    document_id: Tensor | None = None
    negatives_id: Tensor | None = None
    label: Tensor | None = None
    negatives_label: Tensor | None = None
    query_teacher: Tensor | None = None
    document_teacher: Tensor | None = None
    negatives_teacher: Tensor | None = None
    teacher_margin: float | None = None

    def __post_init__(self) -> None:
        if self.teacher_margin is not None and (self.query_teacher is None or self.document_teacher is None):
            missing = "query" if self.query_teacher is None else "document"
            raise ValueError(
                f"Got teacher_margin {self.teacher_margin} without teacher embeddings for {missing}; give the module a "
                "teacher or the data set teacher columns, or leave teacher_margin out."
            )

    def of_pairs(self, own: slice) -> Tensor | None:
        """Tell which rows of the batch belong together with these; bool, shape ``(rows of own, batch)``."""
        return either(*(_equal(known, known, own) for known in (self.query_id, self.document_id, self.label)))

    def of_negatives(self, own: slice) -> Tensor | None:
        """Tell which hard negatives are answers to these rows; bool, shape ``(rows of own, negatives)``."""
        return either(
            _equal(self.query_id, self.negatives_id, own),
            _equal(self.document_id, self.negatives_id, own),
            _equal(self.label, self.negatives_label, own),
        )

    def same_query(self, own: slice) -> Tensor | None:
        """Tell which rows of the batch have the same query as these; bool, shape ``(rows of own, batch)``."""
        return _equal(self.query_id, self.query_id, own)

    def by_teacher(self, anchor: str, candidates: Sequence[str], own: slice) -> Tensor | None:
        """Tell what the teacher finds too similar to the anchors of these rows.

        Args:
            anchor: ``"query"`` or ``"document"``.
            candidates: What they are compared with, one after the other: ``"query"``, ``"document"``, ``"negatives"``.
            own: The rows.

        Returns:
            Bool, shape ``(rows of own, candidates)``; None where the teacher is not asked.

        Raises:
            ValueError: If teacher embeddings of the negatives are missing.
        """
        if self.teacher_margin is None:
            return None
        unit = self._unit_teacher
        if not unit.keys() >= set(candidates):
            raise ValueError(
                f"Got teacher_margin {self.teacher_margin} without teacher embeddings for the negatives; add a column "
                "negative_teacher to the data set, or leave teacher_margin out."
            )
        parts = [unit[anchor][own] @ unit[role].T for role in candidates]
        to_answer = (unit["query"][own] * unit["document"][own]).sum(1, keepdim=True)
        return torch.cat(parts, dim=1) > to_answer + self.teacher_margin

    @functools.cached_property
    def _unit_teacher(self) -> dict[str, Tensor]:
        vectors = {
            "query": self.query_teacher,
            "document": self.document_teacher,
            "negatives": self.negatives_teacher,
        }
        return {role: unit_rows(rows) for role, rows in vectors.items() if rows is not None}


def either(*masks: Tensor | None) -> Tensor | None:
    """Return where any mask is True; None, which says nothing, if all are None."""
    there = [mask for mask in masks if mask is not None]
    return functools.reduce(torch.logical_or, there) if there else None


def _equal(rows: Tensor | None, columns: Tensor | None, own: slice) -> Tensor | None:
    return None if rows is None or columns is None else rows[own].unsqueeze(1) == columns
