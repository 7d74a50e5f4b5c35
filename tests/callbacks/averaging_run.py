"""A run that averages its weights, in a process of its own, and what a slow reference needs of it."""

import os
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from lightning_jv5 import EmbeddingModule
from lightning_jv5.callbacks import AdapterAveraging
from tests.process_runs import Killer, contrastive_objective
from tests.tiny_data import quiet_trainer, tiny_data, tiny_module, tiny_student

Weights = dict[str, Tensor]


class History(Callback):
    """Keeps all weights after every optimizer step, and what each validation logged."""

    def __init__(self) -> None:
        self.weights: dict[int, Weights] = {}
        self.logged: dict[int, dict[str, float]] = {}

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *args: Any, **kwargs: Any) -> None:
        # Not once more in the next accumulated batch, whose forward pass has clamped the temperature
        if trainer.global_step and trainer.global_step not in self.weights:
            self.weights[trainer.global_step] = {
                name: weight.detach().clone() for name, weight in pl_module.named_parameters()
            }

    def on_validation_end(self, trainer: Trainer, pl_module: Any) -> None:
        self.logged[trainer.global_step] = {
            name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("val/")
        }


def averaging_module(folder: Path, *, frozen: bool = True) -> EmbeddingModule:
    """Return a student with dropout under losses with a projection and a temperature; half of it may be frozen."""
    module = tiny_module(folder, student=tiny_student(folder, dropout=0.1), objective=contrastive_objective(), lr=0.01)
    if frozen:
        for weight in module.student.backbone.embeddings.parameters():
            weight.requires_grad_(False)
    return module


def averaging_trainer(folder: Path, averaging: AdapterAveraging, *callbacks: Any, **changes: Any) -> Trainer:
    """Return a trainer of six steps that validates after every second batch."""
    settings = {"max_steps": 6, "val_check_interval": 2, "check_val_every_n_epoch": None}
    return quiet_trainer(folder, **{**settings, "callbacks": [averaging, *callbacks], **changes})


def averaging_run(
    folder: Path, averaging: dict[str, Any], kill_before: int | None = None, resume: bool = False, accumulate: int = 1
) -> None:
    """Train six steps on as many ranks as the environment says, with a checkpoint after each."""
    ranks, rank = int(os.environ.get("WORLD_SIZE", "1")), os.environ.get("RANK", "0")
    callback, history = AdapterAveraging(**averaging), History()
    callbacks: list[Callback] = [
        history,
        ModelCheckpoint(folder / "checkpoints", every_n_train_steps=1, save_last=True, save_top_k=1),
    ]
    if kill_before is not None:
        callbacks.append(Killer(kill_before))
    distributed = {"strategy": "ddp_find_unused_parameters_true", "devices": ranks} if ranks > 1 else {}
    module = averaging_module(folder / rank)
    trainer = averaging_trainer(
        folder, callback, *callbacks, enable_checkpointing=True, accumulate_grad_batches=accumulate, **distributed
    )
    trainer.fit(module, tiny_data(), ckpt_path=folder / "checkpoints" / "last.ckpt" if resume else None)
    weights = {name: weight.detach() for name, weight in module.named_parameters()}
    result = {"state": callback.state_dict(), "weights": weights, "logged": history.logged}
    torch.save(result, folder / f"result{rank}of{ranks}.pt")
