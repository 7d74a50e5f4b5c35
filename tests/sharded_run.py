"""Runs in which two processes hold a part of the student's weights each, and the same runs in one process."""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import distributed as dist
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.device_mesh import init_device_mesh

from lightning_jv5 import EmbeddingModule
from lightning_jv5.callbacks import EmbeddingWriter
from lightning_jv5.data.batches import RaggedTexts, TextBatch
from lightning_jv5.losses import Objective, Term
from lightning_jv5.models import Embedder
from lightning_jv5.models.sharding import gradient_norm, shard
from lightning_jv5.tasks import evaluate
from tests.process_runs import in_process
from tests.tiny_data import (
    Constant,
    SqrtAtZero,
    TinyTexts,
    quiet_trainer,
    sgd,
    tiny_data,
    tiny_module,
    tiny_student,
    tiny_task,
    tiny_texts,
)
from tests.tiny_models import tiny_config


def run(folder: Path, ranks: int) -> None:
    """Run ``SCENARIOS`` in so many processes; whoever still waits after two minutes waits for nothing."""
    processes = [
        in_process(
            scenarios,
            folder,
            environment={
                "LIGHTNING_JV5_CACHE": str(folder / "cache"),
                "WORLD_SIZE": str(ranks),
                "LOCAL_WORLD_SIZE": str(ranks),
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "GROUP_RANK": "0",
                "TORCHELASTIC_RUN_ID": "tests",
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": "0",  # asked for, not used: they meet in a file
            },
        )
        for rank in range(ranks)
    ]
    try:
        for process in processes:
            process.join(timeout=120)
        assert [process.exitcode for process in processes] == [0] * ranks
    finally:
        for process in processes:
            process.kill()
            process.join()


def scenarios(folder: Path) -> None:
    """Go through all of them with the same processes, which meet once."""
    rank, ranks = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    if ranks > 1:
        meeting = f"file://{folder}/rendezvous"
        dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=ranks)
    for name, scenario in SCENARIOS.items():
        own = folder / f"{name}-{rank}of{ranks}"
        own.mkdir()
        result = scenario(own, rank, ranks)
        torch.save(result, own / "result.pt")


class ChunkCounts(Callback):
    """Keeps how many chunks each step has on this rank."""

    def __init__(self) -> None:
        self.counts: list[int] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: TextBatch, batch_idx: int) -> None:
        texts = RaggedTexts.cat(list(batch.texts.values()))
        self.counts.append(len(pl_module.student.plan(texts.lengths)))


def fused_adamw(parameters: Any) -> torch.optim.Optimizer:
    """The optimizer that is pickiest about what it is given."""
    return torch.optim.AdamW(parameters, lr=1e-3, eps=1e-4, fused=True)


def sharded_student(folder: Path, **settings: Any) -> Embedder:
    """A student of two blocks whose chunks hold few texts, so that ranks plan different numbers of them."""
    config = tiny_config(num_hidden_layers=2)
    return tiny_student(folder, **{"config": config, "max_tokens_per_chunk": 16, **settings})


def training(
    folder: Path,
    rank: int,
    ranks: int,
    *,
    student: dict[str, Any] | None = None,
    fused: bool = False,
    clip: tuple[str, float] | None = None,
    accumulate: int = 1,
    steps: int = 3,
    checkpoint: str = "",
    resume: Path | None = None,
) -> dict[str, Any]:
    """Fit with a validation, then predict, on as many ranks as there are."""
    embedder = sharded_student(folder, **(student or {}))
    if rank:  # another start, which that of rank 0 must replace
        for weights in embedder.parameters():
            torch.nn.init.normal_(weights)
    module = tiny_module(folder, student=embedder, optimizer=fused_adamw if fused else sgd, lr=None)
    counts = ChunkCounts()
    together = of_rank_0(folder, rank)
    callbacks: list[Callback] = [counts, EmbeddingWriter(str(together / "embeddings"))]
    if checkpoint:
        callbacks.append(ModelCheckpoint(together, save_last=True, every_n_train_steps=1))
    parallel = {
        "devices": ranks,
        "strategy": ModelParallelStrategy(
            data_parallel_size=ranks, tensor_parallel_size=1, save_distributed_checkpoint=checkpoint == "folder"
        ),
    }
    trainer = quiet_trainer(
        folder,
        max_steps=steps,
        max_epochs=-1,
        val_check_interval=steps * accumulate,
        check_val_every_n_epoch=None,
        accumulate_grad_batches=accumulate,
        gradient_clip_algorithm=clip and clip[0],
        gradient_clip_val=clip and clip[1],
        callbacks=callbacks,
        enable_checkpointing=bool(checkpoint),
        **(parallel if ranks > 1 else {}),
    )
    data = tiny_data(val={"tiny": tiny_task(9)}, predict=TinyTexts(9))
    trainer.validate(module, data, verbose=False)  # before fit, whose optimizer must have the sharded weights
    trainer.fit(module, data, ckpt_path=resume)
    scores = {key: value.item() for key, value in trainer.callback_metrics.items() if key.startswith("val/")}
    norm = trainer.callback_metrics["train/grad_norm"].item()
    trainer.predict(module, data)
    return {"weights": whole_weights(module), "scores": scores, "norm": norm, "chunks": counts.counts}


def resumed(folder: Path, rank: int, ranks: int, *, checkpoint: str) -> dict[str, Any]:
    """Fit two steps, then resume for the third."""
    first = folder / "first"
    first.mkdir()
    training(first, rank, ranks, fused=True, steps=2, checkpoint=checkpoint)
    return training(folder, rank, ranks, fused=True, checkpoint=checkpoint, resume=of_rank_0(first, rank) / "last.ckpt")


def of_rank_0(folder: Path, rank: int) -> Path:
    """Return the folder of rank 0 where the ranks write together."""
    return Path(str(folder).replace(f"-{rank}of", "-0of"))


def whole_weights(module: torch.nn.Module) -> dict[str, Any]:
    """Return all weights, on rank 0."""
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    return get_model_state_dict(module, options=options)


def uneven_texts(rank: int, ranks: int) -> list[str]:
    """Return seven texts in all: rank 0 has none unless it is alone."""
    texts = tiny_texts(7, seed=4)
    return texts if ranks == 1 else texts * rank


def forwards(folder: Path, rank: int, ranks: int, *, recompute: bool) -> dict[str, Any]:
    """Embed and train on texts that rank 0 has none of; in inference mode before, and through ``encode`` after."""
    student = sharded_student(folder, recompute=recompute)
    if ranks > 1:
        shard(student.backbone, init_device_mesh("cpu", (ranks,)))
    texts = uneven_texts(rank, ranks)
    ragged = student.tokenization.ragged(texts, "document")
    with torch.inference_mode():
        before = student(ragged)
    embeddings = student(ragged)
    target = torch.randn(len(texts), 32, generator=torch.Generator().manual_seed(0))
    (ranks * (embeddings * target).sum()).backward()  # the mean over ranks is then the gradient of one process
    gradients = {
        name: getattr(weights.grad, "full_tensor", lambda grad=weights.grad: grad)()
        for name, weights in student.named_parameters()
    }
    encoded = student.encode(texts * 200)  # two blocks of encode on one rank, none on the other
    return {
        "before": before,
        "embeddings": embeddings.detach(),
        "encoded": encoded,
        "gradients": gradients,
        "norm": gradient_norm(student.parameters()),
    }


def counted_calls(folder: Path, rank: int, ranks: int) -> dict[str, Any]:
    """Score an encoder that counts how often it is asked, without a Trainer."""
    calls = []

    def encode(texts: Any, role: str) -> torch.Tensor:
        calls.append(len(texts))
        return torch.tensor([[len(text), text.count("a")] for text in texts], dtype=torch.float32).reshape(-1, 2)

    [score] = evaluate(encode, {"tiny": tiny_task(9)}, progress=False, batch_texts=4)
    return {"calls": calls, "values": score.values}


def refused(folder: Path, rank: int, ranks: int) -> str:
    """Ask for what Lightning does by default: to divide layers among devices."""
    trainer = quiet_trainer(folder, devices=ranks, strategy=ModelParallelStrategy(), max_steps=1)
    try:
        trainer.fit(tiny_module(folder), tiny_data())
    except ValueError as error:
        return str(error)
    return ""


def broken(folder: Path, rank: int, ranks: int) -> str:
    """Train on a loss whose gradient is not finite."""
    objective = Objective({"fine": Term(Constant()), "broken": Term(SqrtAtZero())})
    module = EmbeddingModule(sharded_student(folder), objective, optimizer=sgd)
    strategy = ModelParallelStrategy(data_parallel_size=ranks, tensor_parallel_size=1)
    try:
        quiet_trainer(folder, devices=ranks, strategy=strategy, max_steps=1).fit(module, tiny_data())
    except FloatingPointError as error:
        return str(error)
    return ""


SCENARIOS: dict[str, Callable[[Path, int, int], Any]] = {
    "plain": training,
    "recompute": partial(training, student={"recompute": True}),
    "packed": partial(training, student={"recompute": True, "attention": "packed"}),
    "clip norm": partial(training, clip=("norm", 0.5), accumulate=2),
    "clip value": partial(training, clip=("value", 0.05)),
    "fused": partial(training, fused=True),
    "resumed from a file": partial(resumed, checkpoint="file"),
    "resumed from a folder": partial(resumed, checkpoint="folder"),
    "forwards": partial(forwards, recompute=False),
    "forwards, recompute": partial(forwards, recompute=True),
    "counted calls": counted_calls,
    "refused": refused,
    "broken": broken,
}
