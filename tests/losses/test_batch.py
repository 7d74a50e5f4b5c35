import pytest
import torch

from lightning_jv5.losses import EmbeddingBatch


def test_truncating_normalises_student_embeddings_and_leaves_the_rest() -> None:
    z, teacher, score = torch.tensor([[0.6, 0.0, 0.8], [0.0, 3.0, 4.0]]), torch.ones(2, 5), torch.ones(2)
    cut = EmbeddingBatch(z, negatives=z.flip(0), query_teacher=teacher, score=score, dataset="nq").truncate(2)
    assert cut.query.tolist() == [[1.0, 0.0], [0.0, 1.0]]
    assert cut.negatives is not None
    assert cut.negatives.tolist() == [[0.0, 1.0], [1.0, 0.0]]
    assert (cut.document, cut.query_teacher, cut.score, cut.dataset) == (None, teacher, score, "nq")


@pytest.mark.parametrize("dim", [0, 4])
def test_only_dimensions_that_are_there_can_be_kept(dim: int) -> None:
    with pytest.raises(ValueError, match=f"embeddings of 3 dimensions; cannot keep the first {dim}"):
        EmbeddingBatch(torch.ones(2, 3)).truncate(dim)
