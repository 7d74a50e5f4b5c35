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
        query_id: A number for each query's text, equal for equal texts of any role: int64, shape ``(batch,)``. Left out
            is what has the text of the anchor, of its answer, or of the answer to an equal anchor.
        document_id: The same for the documents.
        negatives_id: The same for the hard negatives.
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

    def check(self, batch: int, negatives: int) -> None:
        """Check that there is one number for each text.

        Raises:
            ValueError: If a column has another length.
        """
        for name in ("query_id", "document_id", "label", "query_teacher", "document_teacher"):
            _check_length(name, getattr(self, name), batch, "rows")
        for name in ("negatives_id", "negatives_label", "negatives_teacher"):
            _check_length(name, getattr(self, name), negatives, "negatives")

    def of(self, anchor: str, role: str, own: slice) -> Tensor | None:
        """Tell which candidates of a role are no negatives of the anchors of these rows, by their texts and classes.

        Args:
            anchor: Who chooses: ``"query"`` or ``"document"``.
            role: Among what: ``"query"``, ``"document"`` or ``"negatives"``.
            own: The rows.

        Returns:
            Bool, shape ``(rows of own, candidates of the role)``; None where nothing is known.
        """
        classes = self.negatives_label if role == "negatives" else self.label
        return either(self._by_text(anchor, role, own), _equal(self.label, classes, own))

    def _by_text(self, anchor: str, role: str, own: slice) -> Tensor | None:
        candidates = {"query": self.query_id, "document": self.document_id, "negatives": self.negatives_id}[role]
        asked, answers = self.query_id, self.document_id
        if anchor == "document":
            asked, answers = answers, asked
        found = [_equal(asked, candidates, own), _equal(answers, candidates, own)]
        if role == anchor:  # another anchor with the same answer
            found.append(_equal(answers, answers, own))
        if asked is not None and answers is not None and candidates is not None and anchor in self._repeated:
            found.append(_answers_to_equal(asked, answers, candidates, own))
        return either(*found)

    @functools.cached_property
    def _repeated(self) -> set[str]:
        """The roles in which a text occurs more than once: only then has a text answers in other rows."""
        ids = {"query": self.query_id, "document": self.document_id}
        return {role for role, known in ids.items() if known is not None and len(torch.unique(known)) < len(known)}

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


def _answers_to_equal(asked: Tensor, answers: Tensor, candidates: Tensor, own: slice) -> Tensor:
    """Tell which candidates have the text of an answer to any row that asks the same as these rows."""
    ordered = answers.sort().values
    # Each text by the place of its first occurrence in that order; candidates of other texts are no answers
    answer_place = torch.searchsorted(ordered, answers)
    place = torch.searchsorted(ordered, candidates.contiguous()).clamp(max=len(ordered) - 1)
    same = (asked[own].unsqueeze(1) == asked).float()
    answered = torch.zeros_like(same).index_add_(1, answer_place, same) > 0
    return answered[:, place] & (ordered[place] == candidates)


def _check_length(name: str, column: Tensor | None, count: int, what: str) -> None:
    if column is not None and len(column) != count:
        raise ValueError(f"Got {len(column)} of {name} for {count} {what}; need one for each, or leave it out.")


def either(*masks: Tensor | None) -> Tensor | None:
    """Return where any mask is True; None, which says nothing, if all are None."""
    there = [mask for mask in masks if mask is not None]
    return functools.reduce(torch.logical_or, there) if there else None


def _equal(rows: Tensor | None, columns: Tensor | None, own: slice) -> Tensor | None:
    return None if rows is None or columns is None else rows[own].unsqueeze(1) == columns
