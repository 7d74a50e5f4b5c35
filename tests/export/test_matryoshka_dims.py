from typing import Any

import pytest

from lightning_jv5.export.matryoshka_dims import matryoshka_dims
from lightning_jv5.losses import EmbeddingDistillation, Matryoshka, Objective
from lightning_jv5.losses.objective import Term
from lightning_jv5.rebuildable import describe


def test_the_dims_of_all_terms_are_found_in_a_described_objective() -> None:
    near, far = (Matryoshka(EmbeddingDistillation(), dims=dims) for dims in ([8, 16], [4, 16]))
    objective = Objective({"near": Term(near), "far": Term(far), "plain": Term(EmbeddingDistillation())})
    assert matryoshka_dims({"steps": 3, "objective": describe(objective)}) == {4, 8, 16}


@pytest.mark.parametrize(
    "trained",
    [
        None,
        {},
        {"class_path": "lightning_jv5.losses.Matryoshka"},
        {"class_path": "lightning_jv5.losses.Matryoshka", "init_args": None},
        {"class_path": "lightning_jv5.callbacks.MatryoshkaEvaluation", "init_args": {"dims": [8]}},  # trains nothing
        {"class_path": "theirs.NoMatryoshka", "init_args": {"dims": [8]}},
    ],
)
def test_only_matryoshka_says_dims(trained: Any) -> None:
    assert matryoshka_dims(trained) == set()
