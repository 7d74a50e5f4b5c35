"""What a loss sees: the embeddings of one step, by role."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from lightning_jv5.losses.across_ranks import gather_rows, rank_and_ranks, rows_of_ranks
from lightning_jv5.losses.unit import unit_rows

_BY_ROW = (
    *("query", "document", "query_teacher", "document_teacher", "query_id", "document_id"),
    *("score", "label", "negative_counts"),
)
_BY_NEGATIVE = ("negatives", "negatives_teacher", "negatives_id", "negatives_label")


@dataclass
class EmbeddingBatch:
    """Embeddings of one step and what is known about them.

    Student embeddings are unit-length. Teacher embeddings keep their own dimension, whatever the student is cut to.

    Attributes:
        query: Shape ``(batch, dim)``.
        document: Shape ``(batch, dim)``; row ``i`` answers query ``i``.
        negatives: Hard negatives of all queries, one after the other; shape ``(sum of negative_counts, dim)``.
        negative_counts: How many negatives each query has; shape ``(batch,)``.
        query_teacher: Teacher embeddings of the queries; shape ``(batch, teacher_dim)``.
        document_teacher: Teacher embeddings of the documents; shape ``(batch, teacher_dim)``.
        negatives_teacher: Teacher embeddings of the negatives; shape ``(sum of negative_counts, teacher_dim)``.
        query_id: A number for each query's text, equal for equal texts of any role; int64, shape ``(batch,)``.
        document_id: The same for the documents.
        negatives_id: The same for the negatives.
        score: Graded similarity of each pair, for scored pairs; shape ``(batch,)``.
        label: Class of each query and its document; shape ``(batch,)``.
        negatives_label: Class of each negative.
        dataset: Name of the data set that the step was drawn from.
        step: Optimizer steps before this one: what schedules go by.
        gathered: The same of all ranks together, where :meth:`gather` has been called.
        first_row: Which row of ``gathered`` is the first of this rank.
        first_negative: The same for the negatives.
        ranks: How many ranks ``gathered`` is from.
    """

    query: Tensor
    document: Tensor | None = None
    negatives: Tensor | None = None
    negative_counts: Tensor | None = None
    query_teacher: Tensor | None = None
    document_teacher: Tensor | None = None
    negatives_teacher: Tensor | None = None
    query_id: Tensor | None = None
    document_id: Tensor | None = None
    negatives_id: Tensor | None = None
    score: Tensor | None = None
    label: Tensor | None = None
    negatives_label: Tensor | None = None
    dataset: str = "train"
    step: int = 0
    gathered: "EmbeddingBatch | None" = None
    first_row: int = 0
    first_negative: int = 0
    ranks: int = 1

    def truncate(self, dim: int) -> "EmbeddingBatch":
        """Keep the first ``dim`` coordinates of every student embedding and normalise again (Matryoshka).

        Raises:
            ValueError: If the student has fewer than ``dim`` coordinates.
        """
        if not 1 <= dim <= self.query.shape[-1]:
            raise ValueError(
                f"Got embeddings of {self.query.shape[-1]} dimensions; cannot keep the first {dim}. "
                f"Choose Matryoshka dims between 1 and {self.query.shape[-1]}."
            )

        def cut(embeddings: Tensor | None) -> Tensor | None:
            return None if embeddings is None else unit_rows(embeddings[..., :dim])

        return replace(
            self,
            query=unit_rows(self.query[..., :dim]),
            document=cut(self.document),
            negatives=cut(self.negatives),
            gathered=None if self.gathered is None else self.gathered.truncate(dim),
        )

    # Across processes

    def gather(self) -> "EmbeddingBatch":
        """Return this batch together with those of all ranks, which losses then find in :attr:`everywhere`.

        Embeddings are gathered with their gradient. A loss that averages over this rank's rows and multiplies by
        :meth:`share`, or is computed from all rows on every rank, then has under DDP, which averages gradients over
        ranks, exactly the gradient of one process with the whole batch. Ranks may have different numbers of rows.
        Every rank calls this, with the same columns. Without several processes it changes nothing.

        Raises:
            ValueError: If ranks have different columns; on all of them, so that none waits for another.
        """
        rank, ranks = rank_and_ranks()
        if ranks == 1:
            return self
        negatives = 0 if self.negatives is None else len(self.negatives)
        names = (*_BY_ROW, *_BY_NEGATIVE)
        columns_here = [int(getattr(self, name) is not None) for name in names]
        counts = rows_of_ranks(len(self.query), negatives, *columns_here, device=self.query.device)
        by_row, by_negative, *columns_there = zip(*counts, strict=True)
        differing = [name for name, there in zip(names, columns_there, strict=True) if len(set(there)) > 1]
        if differing:
            raise ValueError(
                f"Got a batch of {self.dataset!r} in which some ranks have {', '.join(differing)} and others do not; "
                "let all ranks draw the same data set in a step."
            )
        columns: dict[str, Any] = {
            name: gather_rows(rows, by_negative if name in _BY_NEGATIVE else by_row)
            for name in names
            if (rows := getattr(self, name)) is not None
        }
        return replace(
            self,
            gathered=replace(self, **columns),
            first_row=sum(by_row[:rank]),
            first_negative=sum(by_negative[:rank]),
            ranks=ranks,
        )

    @property
    def everywhere(self) -> "EmbeddingBatch":
        """The batch of all ranks where it has been gathered, else this one: candidates and whole-batch statistics."""
        return self if self.gathered is None else self.gathered

    @property
    def rows(self) -> slice:
        """This rank's rows in :attr:`everywhere`."""
        return self.rows_of("query")

    def rows_of(self, role: str) -> slice:
        """Return where this rank's texts of a role are among those of :attr:`everywhere`."""
        first = self.first_negative if role == "negatives" else self.first_row
        return slice(first, first + len(self.student(role)))

    def share(self, role: str) -> float:
        """Return what a mean over this rank's texts is multiplied by, so that the mean over ranks is that of all texts.

        1 unless the batch has been gathered and the ranks have different numbers of texts.
        """
        everyone = len(self.everywhere.student(role))
        return self.ranks * len(self.student(role)) / everyone if everyone else 1.0

    # What a loss asks for by role

    def students(self) -> list[Tensor]:
        """Return the student's embeddings of every role that there is."""
        return [rows for rows in (self.query, self.document, self.negatives) if rows is not None]

    def student(self, role: str) -> Tensor:
        """Return the student's embeddings of a role.

        Raises:
            ValueError: If the batch has none.
        """
        embeddings: Tensor | None = getattr(self, role)
        if embeddings is None:
            raise ValueError(
                f"Got a batch of {self.dataset!r} without {role} embeddings, which a loss asks for; use a data set "
                f"that has them, or, if the loss has roles, take {role!r} out of them."
            )
        return embeddings

    def teacher(self, role: str) -> Tensor:
        """Return the teacher's embeddings of a role.

        Raises:
            ValueError: If the batch has none.
        """
        embeddings: Tensor | None = getattr(self, f"{role}_teacher")
        if embeddings is None:
            raise ValueError(
                f"Got a batch of {self.dataset!r} without teacher embeddings for {role}; give the module a teacher, or "
                f"the data set a column {'negative' if role == 'negatives' else role}_teacher."
            )
        return embeddings


def checked_roles(roles: Sequence[str]) -> tuple[str, ...]:
    """Return the roles that a loss works on.

    Raises:
        ValueError: If there is none, one is unknown, or one is named twice.
    """
    known = ("query", "document", "negatives")
    if not roles or len(set(roles)) < len(roles) or not set(roles) <= set(known):
        raise ValueError(f"Got roles {list(roles)}; name one or more of {list(known)}, each once.")
    return tuple(roles)
