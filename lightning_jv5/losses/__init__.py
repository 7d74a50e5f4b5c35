"""Losses: one idea per file, a pure function and its thin module side by side."""

from lightning_jv5.losses.batch import EmbeddingBatch as EmbeddingBatch
from lightning_jv5.losses.embedding_distillation import EmbeddingDistillation as EmbeddingDistillation
from lightning_jv5.losses.embedding_distillation import embedding_distillation as embedding_distillation
from lightning_jv5.losses.loss import Loss as Loss
from lightning_jv5.losses.loss import TermValue as TermValue
from lightning_jv5.losses.matryoshka import Matryoshka as Matryoshka
from lightning_jv5.losses.objective import Objective as Objective
from lightning_jv5.losses.objective import Term as Term
