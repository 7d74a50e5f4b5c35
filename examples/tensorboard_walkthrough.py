"""Run a short fit, then say what is on which page of TensorBoard.

python examples/tensorboard_walkthrough.py                            twenty steps of small.yaml, offline
python examples/tensorboard_walkthrough.py --config mine.yaml         another config
"""

import argparse
import json
from collections import defaultdict
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lightning_jv5.cli import main

# What a tag's first part, or the whole tag, is about
MEANINGS = {
    "train/loss": "the objective; train/<term> are its terms before their weights",
    "train/grad_norm": "norm of the gradient before clipping: peaks are batches to look at",
    "train/lr": "the learning rate",
    "train/texts_per_second": "speed; train/padding_share is what of it is wasted",
    "sets": "each data set by itself: its losses, and how often it was drawn",
    "val": "scores of the evaluation tasks; .../dim64 truncated, .../binary as sign bits",
    "epoch": "written by Lightning",
    "hp": "the best score, beside the settings on the page HPARAMS",
}

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--config", action="append", help="one or several, merged left to right")
parser.add_argument("--task", default="docstrings", help="evaluation task whose texts the projector shows")
parser.add_argument("--steps", type=int, default=20)
arguments = parser.parse_args()

projector = {"class_path": "lightning_jv5.callbacks.EmbeddingProjector", "init_args": {"task": arguments.task}}
main(
    [
        "fit",
        *(f"--config={config}" for config in arguments.config or ["small.yaml"]),
        "--name=walkthrough",
        f"--trainer.max_steps={arguments.steps}",
        f"--trainer.val_check_interval={arguments.steps}",
        "--trainer.check_val_every_n_epoch=null",
        "--trainer.log_every_n_steps=1",
        f"--trainer.callbacks+={json.dumps(projector)}",
    ]
)
folder = max(Path("runs/walkthrough").glob("version_*"), key=lambda path: path.stat().st_mtime)

events = EventAccumulator(str(folder), size_guidance={"images": 1, "tensors": 0, "scalars": 0})
events.Reload()
tags = events.Tags()
texts = [tag for tag in tags["tensors"] if tag.endswith("/text_summary")]

print(f"\nTIME SERIES and SCALARS: {len(tags['scalars'])} curves over the steps")
groups = defaultdict(list)
for tag in sorted(tags["scalars"]):
    groups[tag.partition("/")[0]].append(tag)
for group, members in groups.items():
    print(f"  {group}: {len(members)} curves. {MEANINGS.get(group, '')}")
    for tag in members:
        if group == "train" or tag.count("/") == 2 or len(members) < 6:
            print(f"    {tag} = {events.Scalars(tag)[-1].value:.4g}  {MEANINGS.get(tag, '')}".rstrip())
print("IMAGES: figures, also as PNG files and with their numbers as JSON in figures/")
print("".join(f"  {tag}\n" for tag in tags["images"]), end="")
print("TEXT: tables and examples, also as Markdown in texts/")
print("".join(f"  {tag.removesuffix('/text_summary')}\n" for tag in texts), end="")
print("PROJECTOR: held-out texts as points, to be turned and searched, where projector/ was written")
print("".join(f"  {path.relative_to(folder)}\n" for path in sorted(folder.rglob("*.tsv"))), end="")
print(f"\nTo look at it:  tensorboard --logdir {folder}")
