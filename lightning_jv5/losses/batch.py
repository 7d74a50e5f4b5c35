"""What a loss sees: the embeddings of one step, by role."""

from dataclasses import dataclass, replace

import torch.nn.functional as F
from torch import Tensor


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
        score: Graded similarity of each pair, for scored pairs; shape ``(batch,)``.
        label: Class of each query; shape ``(batch,)``.
        dataset: Name of the data set that the step was drawn from.
    """

    query: Tensor
    document: Tensor | None = None
    negatives: Tensor | None = None
    negative_counts: Tensor | None = None
    query_teacher: Tensor | None = None
    document_teacher: Tensor | None = None
    negatives_teacher: Tensor | None = None
    score: Tensor | None = None
    label: Tensor | None = None
    dataset: str = "train"

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
            return None if embeddings is None else F.normalize(embeddings[..., :dim], dim=-1)

        query = F.normalize(self.query[..., :dim], dim=-1)
        return replace(self, query=query, document=cut(self.document), negatives=cut(self.negatives))
