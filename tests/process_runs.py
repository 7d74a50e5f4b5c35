"""Runs in processes of their own, that may be killed, or be several ranks of one run."""

import contextlib
import json
import multiprocessing
import os
import signal
import socket
from collections.abc import Callable
from multiprocessing import connection, get_context
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_jv5 import EmbeddingDataModule, EmbeddingModule
from lightning_jv5.callbacks import BinaryQuantization, EvaluationReport, MatryoshkaEvaluation
from lightning_jv5.data import LabelTuples, TrainingSet
from lightning_jv5.losses import (
    EmbeddingDistillation,
    InfoNCE,
    LearnableTemperature,
    LinearRamp,
    Matryoshka,
    Objective,
    RelationalDistillation,
    SpreadOut,
    Term,
)
from lightning_jv5.models import Embedder, LoRA, Projection, StudentWithoutAdapter
from lightning_jv5.schedules import WarmupCosine
from tests.models.tiny_adapters import fill_adapter
from tests.tiny_data import (
    TEACHER_DIM,
    TinyLabelled,
    TinyPairs,
    TinyVectors,
    quiet_trainer,
    sgd,
    tiny_data,
    tiny_module,
    tiny_objective,
    tiny_student,
)
from tests.tiny_models import save_tiny_backbone


class RenamedData(EmbeddingDataModule):
    """A data module under another name than the one that a checkpoint was written with."""


class Diary(Callback):
    """Write each batch's loss and rows to a file, which survives a kill."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        entry = {
            "batch": pl_module.trained_batches,
            "loss": float(trainer.callback_metrics["train/loss"]),
            "dataset": batch.dataset,
            "tokens": batch.texts["query"].token_ids.tolist(),
            "lengths": batch.texts["query"].lengths.tolist(),
        }
        with self.file.open("a") as file:
            file.write(json.dumps(entry) + "\n")


def contrastive_objective() -> Objective:
    """Losses that see all ranks, at several dims."""
    torch.manual_seed(1)
    retrieval = Objective(
        {
            "contrast": Term(InfoNCE(LearnableTemperature(0.1), direction="both")),
            "distill": Term(EmbeddingDistillation(Projection(32, TEACHER_DIM)), weight=LinearRamp(1.0, 2.0, steps=2)),
        }
    )
    return Objective({"retrieval": Term(Matryoshka(retrieval, [32, 8])), "spread": Term(SpreadOut())})


class Killer(Callback):
    """Kill the process before a batch; nothing is tidied up."""

    def __init__(self, batch: int) -> None:
        self.batch = batch

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if pl_module.trained_batches == self.batch:
            for worker in multiprocessing.active_children():  # they would notice seconds later, and keep a join waiting
                worker.kill()
            os.kill(os.getpid(), signal.SIGKILL)


def in_process(target: Callable[..., None], *arguments: Any, environment: dict[str, str] | None = None) -> Any:
    """Start ``target`` in a process forked from a clean one that has imported everything."""
    context = get_context("forkserver")
    context.set_forkserver_preload([__name__])
    process = context.Process(target=_with_environment, args=(environment or {}, target, *arguments))
    process.start()
    return process


def finished(processes: list[Any]) -> list[int | None]:
    """Wait for processes and return their exit codes; where one fails, the others, who may wait for it, are killed."""
    waiting = list(processes)
    while waiting:
        connection.wait([process.sentinel for process in waiting])
        waiting = [process for process in waiting if process.is_alive()]
        if any(process.exitcode for process in processes):
            for process in waiting:
                process.kill()
    for process in processes:
        process.join()
    return [process.exitcode for process in processes]


def ranks_environment(ranks: int) -> dict[str, str]:
    """Return what a launcher would tell each process, but for its rank."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": str(ranks),
        "LOCAL_WORLD_SIZE": str(ranks),
        "GROUP_RANK": "0",
        "TORCHELASTIC_RUN_ID": "tests",
    }


def _with_environment(environment: dict[str, str], target: Callable[..., None], *arguments: Any) -> None:
    os.environ.update(environment)
    torch.set_num_threads(1)
    target(*arguments)


def mixed_sets(negatives: int, pairs: type[TinyPairs]) -> dict[str, TrainingSet]:
    """A set in any order, a stream, and tuples of labels, each with its own batch size and length."""
    return {
        "pairs": TrainingSet(pairs(20), weight=2, max_length=6),
        "stream": TrainingSet(pairs(14), weight=2, batch_size=2, streaming=True, shuffle_rows=4),
        "topics": TrainingSet(TinyLabelled(), weight=1, tuples=LabelTuples(negatives)),
    }


def with_lora(folder: Path, *, start: int = 2, dropout: float = 0.1, **settings: Any) -> EmbeddingModule:
    """An adapter on a frozen base, taught by the base itself, with a projection and a temperature to train beside it.

    Args:
        folder: Where to save the base, which is the same every time.
        start: Seed of what is trained.
        dropout: Of the adapter.
        settings: Of the module.
    """
    base = save_tiny_backbone(folder / "base")
    with torch.random.fork_rng():
        torch.manual_seed(start)
        lora = LoRA("classification", rank=4, dropout=dropout)
        student = Embedder(base, pooling="mean", adapter=lora, dropout=0.0, max_tokens_per_chunk=48)
        objective = Objective(
            {
                "relations": Term(RelationalDistillation(), weight=20.0),
                "contrast": Term(InfoNCE(LearnableTemperature(0.05))),
                "distill": Term(EmbeddingDistillation(Projection(32, 32))),
            }
        )
        fill_adapter(student.backbone, "classification", start)
    return EmbeddingModule(student, objective, StudentWithoutAdapter(), **settings)


def resumable_run(
    folder: Path,
    *,
    kill_before: int | None = None,
    resume: bool = False,
    workers: int = 0,
    accumulate: int = 1,
    renamed: bool = False,
    limit: float = 1.0,
    mixture: bool = False,
    lora: bool = False,
    batch_size: int = 4,
    negatives: int = 2,
    start: str = "fork",
) -> None:
    """Two epochs of five batches (a mixture: of nine), with dropout, a schedule, and a checkpoint after every step."""
    multiprocessing.set_start_method(start, force=True)  # of the loader's workers
    checkpoints = ModelCheckpoint(folder / "checkpoints", every_n_train_steps=1, save_last=True, save_top_k=1)
    ranks = int(os.environ.get("WORLD_SIZE", "1"))
    callbacks: list[Callback] = [Diary(folder / f"diary{os.environ.get('RANK', '')}.jsonl"), checkpoints]
    if kill_before is not None:
        callbacks.append(Killer(kill_before))
    own = folder / os.environ.get("RANK", "")  # ranks must not write one tokenizer at once
    if lora:  # what is restored does not start as it started first
        module = with_lora(own, start=3 if resume else 2, lr=1e-3, scheduler=WarmupCosine, seed=5)
    else:
        objective = InfoNCE() if mixture else tiny_objective()
        module = tiny_module(own, dropout=0.2, scheduler=WarmupCosine, seed=5, objective=objective)
    pairs = TinyPairs if lora else TinyVectors
    train: Any = mixed_sets(negatives, pairs) if mixture else pairs(20)
    data = tiny_data(
        train=train, num_workers=workers, val={}, batch_size=batch_size, steps_per_epoch=9 if mixture else None
    )
    if renamed:
        data = RenamedData(TinyVectors(20), batch_size=4, num_workers=workers)
    trainer = quiet_trainer(
        folder,
        max_epochs=2,
        callbacks=callbacks,
        enable_checkpointing=True,
        accumulate_grad_batches=accumulate,
        limit_train_batches=limit,
        **({"strategy": "ddp", "devices": ranks} if ranks > 1 else {}),
    )
    try:
        trainer.fit(module, data, ckpt_path=folder / "checkpoints" / "last.ckpt" if resume else None)
    except ValueError as error:
        (folder / "error.txt").write_text(str(error))
        return
    torch.save(module.state_dict(), folder / "weights.pt")


def distributed_run(folder: Path, sampler: bool = False, contrast: bool = False, lora: bool = False) -> None:
    """Three steps and a validation, on as many ranks as the environment says."""
    ranks = int(os.environ.get("WORLD_SIZE", "1"))
    rank = os.environ.get("RANK", "0")
    distributed = {"strategy": "ddp", "devices": ranks} if ranks > 1 else {}
    settings: dict[str, Any] = {}
    if contrast:
        student = tiny_student(folder / rank, recompute=True, max_tokens_per_chunk=16)
        settings = {"student": student, "objective": contrastive_objective(), "gather": True}
    if lora:
        module = with_lora(folder / rank, dropout=0.0, optimizer=sgd, lr=1e-5, gather=True)
    else:
        module = tiny_module(folder / rank, optimizer=sgd, lr=None, **settings)
    trainer = quiet_trainer(
        folder,
        max_steps=3,
        use_distributed_sampler=sampler,
        callbacks=[Diary(folder / f"diary{rank}of{ranks}.jsonl")],
        **distributed,
    )
    try:
        trainer.fit(module, tiny_data(train=TinyPairs() if lora else TinyVectors()))
    except ValueError as error:
        (folder / f"error{rank}of{ranks}.txt").write_text(str(error))
        return
    scores = {name: value.item() for name, value in trainer.callback_metrics.items() if name.startswith("val/")}
    torch.save({"weights": module.state_dict(), "scores": scores}, folder / f"result{rank}of{ranks}.pt")


def evaluation_run(folder: Path, tasks: Callable[[], dict[str, Any]], batch_size: int) -> None:
    """A validation without an objective that is reported, on as many ranks as the environment says."""
    ranks, rank = (os.environ.get(name, default) for name, default in (("WORLD_SIZE", "1"), ("RANK", "0")))
    distributed = {"strategy": "ddp", "devices": int(ranks)} if ranks != "1" else {}
    callbacks = [MatryoshkaEvaluation(), BinaryQuantization(), EvaluationReport(run_files=True)]
    trainer = quiet_trainer(folder, callbacks=callbacks, **distributed)
    module = EmbeddingModule(tiny_student(folder / f"student{rank}", max_tokens_per_chunk=64))
    data = tiny_data(train=None, val=tasks(), evaluation_batch_size=batch_size)
    with (folder / f"printed{rank}.txt").open("w") as printed, contextlib.redirect_stdout(printed):
        trainer.validate(module, data, verbose=False)
    scores = {name: float(value) for name, value in trainer.callback_metrics.items()}
    (folder / f"logged{rank}.json").write_text(json.dumps(scores))
