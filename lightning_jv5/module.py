"""EmbeddingModule: encodes the texts of a step, asks the objective, and logs. The recipe is in its parts."""

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.strategies import ModelParallelStrategy
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.optim import Optimizer

from lightning_jv5.callbacks.data_set_losses import DataSetLosses
from lightning_jv5.callbacks.view_evaluation import views_of_callbacks
from lightning_jv5.data.batches import EvaluationBatch, RaggedTexts, TextBatch
from lightning_jv5.data.resuming import ResumableData
from lightning_jv5.losses import EmbeddingBatch, Loss, Objective, TermValue
from lightning_jv5.losses.loss import weighted_sum
from lightning_jv5.models import Embedder, Teacher
from lightning_jv5.models.frozen_weights import drop_frozen, restore_frozen
from lightning_jv5.models.sharding import (
    average_gradients,
    clip_gradient_norm,
    clip_gradient_values,
    gradient_norm,
    is_shard,
    is_sharded,
    same_on_all_ranks,
    shard,
)
from lightning_jv5.parameter_groups import parameter_groups
from lightning_jv5.rebuildable import Rebuildable, constructor_arguments, describe, rebuild
from lightning_jv5.schedules import StepSchedule
from lightning_jv5.tasks import EmbeddedTexts, View
from lightning_jv5.tasks.trainer import (
    SharesEvaluation,
    begin_evaluation,
    check_monitored_scores,
    embedded_texts,
    shows_progress,
)

CHECKPOINT_FORMAT = 3  # 1 knew nothing of the data, 2 nothing of frozen weights


class EmbeddingModule(Rebuildable, SharesEvaluation, LightningModule):
    """Train a student embedder on an objective, with or without an online teacher.

    Args:
        student: The model that is trained.
        objective: What is minimised; its terms are logged as ``train/<name>``. Only ``fit`` needs one.
        teacher: A frozen model that embeds the same texts; none where the rows carry teacher vectors.
        optimizer: Makes the optimizer from parameter groups. Norms and biases get no weight decay.
        scheduler: Makes the learning-rate schedule, stepped after each optimizer step; see
            :mod:`lightning_jv5.schedules` for those that know the length of the run.
        lr: Learning rate that replaces the optimizer's own; what Lightning's ``LearningRateFinder`` sets.
        learning_rates: Learning rate by parameter name pattern, such as ``{"objective.*projection*": 1e-3}``.
        gather: Whether losses see the embeddings of all ranks: a query is then contrasted with the documents of the
            global batch, and statistics of a batch are the global batch's. Otherwise each rank's own.
        compile: Compile the student's backbone with ``torch.compile`` (dynamic shapes).
        seed: With the step and the rank, seeds what is random inside a step (dropout): a resumed run repeats it.

    The teacher is deliberately *not* registered as a submodule: it follows the module to its device, but is no part of
    ``state_dict``, checkpoints, the optimizer, parameter counts, DDP's broadcasts or FSDP's wrapping.
    """

    teacher: Teacher | None

    def __init__(
        self,
        student: Embedder,
        objective: Objective | Loss | None = None,
        teacher: Teacher | None = None,
        *,
        optimizer: OptimizerCallable = torch.optim.AdamW,
        scheduler: LRSchedulerCallable | None = None,
        lr: float | None = None,
        learning_rates: dict[str, float] | None = None,
        gather: bool = False,
        compile: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if lr is not None and lr <= 0:
            raise ValueError(f"Got lr {lr}; a learning rate is positive. Leave it out to use the optimizer's own.")
        self.student = student
        self.objective = objective
        self.__dict__["teacher"] = teacher  # past nn.Module.__setattr__, which would register it
        if teacher is not None:
            teacher.bind(student)
        self.optimizer = optimizer
        self.scheduler = scheduler
        self.learning_rates = learning_rates
        self.gather = gather
        self.seed = seed
        self._lr = self._configured_lr = lr
        self._resumed_batches = 0
        self._last_batch: TextBatch | None = None
        self._evaluation_began = False
        if compile:
            self.student.backbone.compile(dynamic=True)

    # The teacher moves with the module, although it is not registered.

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        if recurse and self.teacher is not None:
            self.teacher._apply(fn)  # type: ignore[no-untyped-call]
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    def configure_model(self) -> None:
        """Under ``ModelParallelStrategy`` (FSDP2) divide the backbone's weights among the ranks.

        What is small (Dense layers, the objective) stays whole on every rank, and its gradients are averaged as DDP
        does.

        Raises:
            ValueError: If the strategy is to divide single layers among devices (tensor parallelism), or the student's
                weights are frozen under an adapter.
        """
        strategy = self.trainer.strategy
        if not isinstance(strategy, ModelParallelStrategy) or is_sharded(self.student.backbone):
            return
        if self.student.adapter is not None:
            raise ValueError(
                f"Got ModelParallelStrategy for the adapter {self.student.adapter.name!r}: every step would gather "
                "frozen weights, and its checkpoints are not whole. Use strategy: ddp, as only the adapter's gradients "
                "travel."
            )
        mesh = strategy.device_mesh
        if mesh["tensor_parallel"].size() > 1:
            raise ValueError(
                f"Got ModelParallelStrategy with tensor_parallel_size {mesh['tensor_parallel'].size()}; need 1, as "
                "every process has texts of its own. Set tensor_parallel_size: 1 and data_parallel_size to the number "
                "of processes."
            )
        self.to(strategy.root_device)
        same_on_all_ranks([*self.parameters(), *self.buffers()])
        shard(self.student.backbone, mesh["data_parallel"])

    # Encoding

    def encode(
        self,
        texts: Sequence[str],
        role: str = "document",
        *,
        task: str | None = None,
        truncate_dim: int | None = None,
        progress: bool = False,
    ) -> Tensor:
        """Embed texts with the student.

        Args:
            texts: Strings without prompt; an empty one is encoded as the prompt and the special tokens alone.
            role: Whose prompt and length limit to use: ``"query"`` or ``"document"``.
            task: Whose adapter to use, where the student has several.
            truncate_dim: Keep this many leading coordinates and normalise again.
            progress: Show a progress bar.

        Returns:
            Embeddings in the order of ``texts``, on the CPU; float32, shape ``(texts, dim)``.

        Where ranks hold a part of the weights each (FSDP2, FSDP), all of them call this, each with texts of its own or
        with none.
        """
        return self.student.encode(texts, role, task=task, truncate_dim=truncate_dim, progress=progress)

    def embed(self, batch: TextBatch) -> EmbeddingBatch:
        """Encode all texts of a step together, and fetch or compute the teacher's view of them."""
        texts = RaggedTexts.cat(list(batch.texts.values()))
        embeddings = self.student(texts).split([len(part) for part in batch.texts.values()])
        teacher = {f"{role}_teacher": vectors.float() for role, vectors in batch.teacher_vectors.items()}
        read = batch.texts if self.teacher is not None and self.teacher.reads_student_tokens else batch.teacher_texts
        missing = {role: part for role, part in read.items() if role not in batch.teacher_vectors}
        if missing and self.teacher is not None:
            vectors = self.teacher(RaggedTexts.cat(list(missing.values())))
            parts = vectors.split([len(part) for part in missing.values()])
            teacher |= {f"{role}_teacher": part for role, part in zip(missing, parts, strict=True)}
        embedded: dict[str, Any] = {
            **dict(zip(batch.texts, embeddings, strict=True)),
            **teacher,
            **{f"{role}_id": ids for role, ids in batch.text_ids.items()},
        }
        embedded_batch = EmbeddingBatch(
            **embedded,
            negative_counts=batch.negative_counts,
            score=batch.score,
            label=batch.label,
            negatives_label=batch.negatives_label,
            dataset=batch.dataset,
            step=self.global_step,
        )
        return embedded_batch.gather() if self.gather else embedded_batch

    # Training

    @property
    def trained_batches(self) -> int:
        """How many batches the run has trained on, over all epochs and resumptions; the place in the data's order."""
        return max(self._resumed_batches, trained_batches(self.trainer))  # the trainer restores its count rather late

    def setup(self, stage: str) -> None:
        """Refuse runs that cannot end well, and put the backbone in train mode, which ``from_pretrained`` left."""
        if stage != "fit":
            return
        if self.objective is None:
            raise ValueError(
                "Got no objective; fit needs to know what to minimise. Set model.objective to a loss, such as "
                "lightning_jv5.losses.EmbeddingDistillation, or to terms by name."
            )
        if self.trainer.precision in {"bf16-true", "16-true"}:
            raise ValueError(
                f"Got precision {self.trainer.precision!r}: in half precision 70% of the weights never move under "
                "AdamW at 2e-5. Use trainer.precision=bf16-mixed, which keeps float32 weights and computes in bfloat16."
            )
        check_monitored_scores(self.trainer)
        self._resumed_batches = 0
        self.train()

    def configure_callbacks(self) -> list[Callback]:
        """Add what every run logs of its data sets."""
        return [DataSetLosses()]

    def on_fit_start(self) -> None:
        """Make optimizer and schedule anew where a callback, such as ``LearningRateFinder``, has set :attr:`lr`."""
        if self.lr != self._configured_lr:
            self.trainer.strategy.setup_optimizers(self.trainer)

    def on_train_batch_start(self, batch: TextBatch, batch_idx: int) -> None:
        """Seed the step: Lightning restores no random state, and a resumed run should drop out the same units."""
        torch.manual_seed(hash((self.seed, self.trained_batches, self.global_rank)) & 0x7FFF_FFFF_FFFF_FFFF)

    def training_step(self, batch: TextBatch, batch_idx: int) -> Tensor:
        """Return the objective of one batch."""
        assert self.objective is not None  # as setup has seen
        try:
            terms = self.objective.named_terms(self.embed(batch))
        except ValueError as error:
            error.add_note(f"This was step {self.global_step}, a batch of the data set {batch.dataset!r}.")
            raise
        loss = weighted_sum(terms)
        if not torch.isfinite(loss):
            raise FloatingPointError(self._blame("loss", batch, terms))
        self._last_batch = batch
        self.last_terms = {"loss": loss.detach(), **{name: term.value.detach() for name, term in terms.items() if name}}
        self.log("train/loss", loss.detach(), prog_bar=True, batch_size=batch.text_count)
        for name, term in terms.items():
            if name:  # an objective that is a single loss has no names
                self.log(f"train/{name}", term.value.detach(), batch_size=batch.text_count)
        for name, value in self.objective.watched(self.global_step).items():
            self.log(f"train/{name}", value, batch_size=batch.text_count)
        return loss

    def on_after_backward(self) -> None:
        """Where the backbone is sharded, average the gradients of the other weights, as no DDP does."""
        average_gradients(self.parameters())

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Log the gradient's norm before clipping and the learning rate; stop if the gradient is not finite."""
        norm = gradient_norm(self.parameters())
        assert self._last_batch is not None
        # Under fp16 the gradient scaler expects overflows, and skips those steps.
        if self.trainer.precision != "16-mixed" and not torch.isfinite(norm):
            raise FloatingPointError(self._blame("gradient", self._last_batch, None))
        texts = self._last_batch.text_count
        self.log("train/grad_norm", norm, batch_size=texts)
        for group in optimizer.param_groups:
            pattern = group.get("name", "").rpartition("/")[0].strip("*.")
            self.log(f"train/lr/{pattern}" if pattern else "train/lr", float(group["lr"]), batch_size=texts)

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip as the Trainer is told to, also where only a part of the weights is sharded."""
        weights = [weight for group in optimizer.param_groups for weight in group["params"]]
        if not gradient_clip_val or not any(map(is_shard, weights)):
            super().configure_gradient_clipping(optimizer, gradient_clip_val, gradient_clip_algorithm)
        elif gradient_clip_algorithm == "value":
            clip_gradient_values(weights, gradient_clip_val)
        else:
            clip_gradient_norm(weights, gradient_clip_val)

    def _blame(self, what: str, batch: TextBatch, terms: dict[str, TermValue] | None) -> str:
        """Name the step, the data set and the terms that are not finite."""
        assert self.objective is not None
        with torch.enable_grad():
            if terms is None:
                embedded = self.embed(batch)
                terms = self.objective.named_terms(embedded)
                # The weights in the graph are not the sharded ones; where there are such, embeddings must do
                ends = [end for end in (*self.parameters(), *embedded.students()) if end.requires_grad]
                ends = [end for end in ends if not is_shard(end)]
                culprits = [name for name, term in terms.items() if not _has_finite_gradient(term.value, ends)]
            else:
                culprits = [name for name, term in terms.items() if not torch.isfinite(term.value)]
        names = ", ".join(repr(name or type(self.objective).__name__) for name in culprits)
        return (
            f"The {what} is not finite at step {self.global_step}, in a batch of the data set {batch.dataset!r}, "
            f"from the term {names or '(none alone: the sum, or an earlier batch of an accumulated step)'}. "
            "Look at that data (empty or constant vectors?), lower the learning rate, or raise the temperature; "
            "the last checkpoint is intact."
        )

    # Optimization

    @property
    def lr(self) -> float | None:
        """Learning rate that replaces the optimizer's own, if any."""
        return self._lr

    @lr.setter
    def lr(self, value: float) -> None:
        self._lr = value

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Make the optimizer and the schedule, which steps with the optimizer."""
        self._configured_lr = self.lr
        groups = parameter_groups(self.named_parameters(), self.learning_rates)
        if self.lr is not None:
            groups = [{"lr": self.lr, **group} for group in groups]
        optimizer = self.optimizer(groups)
        if self.scheduler is None:
            return optimizer
        scheduler = self.scheduler(optimizer)
        if isinstance(scheduler, StepSchedule) and scheduler.total_steps is None:
            total_steps = self.trainer.estimated_stepping_batches
            if total_steps == float("inf"):
                raise ValueError(
                    f"{type(scheduler).__name__} needs the length of the run, which has no end; "
                    "set trainer.max_steps or trainer.max_epochs, or the schedule's total_steps."
                )
            scheduler.plan(int(total_steps))
        monitor = getattr(scheduler, "monitor", None)  # ReduceLROnPlateau: once per validation
        config = {"scheduler": scheduler, "interval": "step" if monitor is None else "epoch"}
        return {"optimizer": optimizer, "lr_scheduler": config | ({"monitor": monitor} if monitor else {})}  # type: ignore[return-value]

    # Evaluation: one encode pass, which scores whole embeddings and the views of all callbacks, each of them once

    def evaluation_step(self, batch: EvaluationBatch, batch_idx: int, dataloader_idx: int = 0) -> EmbeddedTexts:
        """Embed a slice of an evaluation task, or of a corpus."""
        return EmbeddedTexts(self.student(batch.texts), batch.rows, batch.task, batch.role)

    validation_step = evaluation_step  # type: ignore[assignment]
    test_step = evaluation_step  # type: ignore[assignment]
    predict_step = evaluation_step

    def on_validation_epoch_start(self) -> None:
        """Begin a pass over the tasks."""
        self._begin_evaluation()

    def on_test_epoch_start(self) -> None:
        """Begin a pass over the tasks."""
        self._begin_evaluation()

    def on_validation_batch_end(self, outputs: Any, *args: Any, **kwargs: Any) -> None:
        """Score the embeddings of a batch."""
        self._update_evaluation(outputs)

    def on_test_batch_end(self, outputs: Any, *args: Any, **kwargs: Any) -> None:
        """Score the embeddings of a batch."""
        self._update_evaluation(outputs)

    def on_validation_epoch_end(self) -> None:
        """Log the scores of whole embeddings, as ``val/<task>/<measure>``."""
        self._end_evaluation("val")

    def on_test_epoch_end(self) -> None:
        """Log the scores of whole embeddings, as ``test/<task>/<measure>``."""
        self._end_evaluation("test")

    def _begin_evaluation(self) -> None:
        self._evaluation_began = True
        views = dict.fromkeys([View(), *views_of_callbacks(self.trainer)])
        self.evaluation = begin_evaluation(self.trainer, list(views), self.device)

    def _update_evaluation(self, outputs: Any) -> None:
        if not self._evaluation_began:
            raise ValueError(
                f"The evaluation of {type(self).__name__} has not begun, so nothing would be scored. Call super() in "
                "your on_validation_epoch_start or on_test_epoch_start."
            )
        if self.evaluation is not None:
            self.evaluation.update(embedded_texts(outputs, type(self).__name__))

    def _end_evaluation(self, prefix: str) -> None:
        self._evaluation_began = False
        if self.evaluation is None:
            return
        for score in self.evaluation.compute([View()], progress=shows_progress(self.trainer)):
            for measure, value in score.values.items():
                main = measure == self.evaluation.tasks[score.task].main_metric
                # The metric has merged the ranks: the largest of equal values is the value, where a mean may round
                self.log(
                    f"{prefix}/{score.task}/{measure}",
                    value,
                    prog_bar=main,
                    batch_size=1,
                    sync_dist=True,
                    reduce_fx="max",
                )
        self.evaluation = None

    # Checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Say, in plain data, how to build this module again."""
        arguments: dict[str, Any] = {}
        for name, value in constructor_arguments(self).items():
            try:
                arguments[name] = describe(value)
            except TypeError:  # an optimizer factory, a downstream part: to be passed to load_from_checkpoint
                continue
        checkpoint["lightning_jv5"] = {
            "format": CHECKPOINT_FORMAT,
            "arguments": arguments,
            "trained_batches": self.trained_batches,  # what was prefetched beyond them does not count
            "frozen": drop_frozen(checkpoint, self.student),
        }
        if isinstance(data := self._data, ResumableData):
            checkpoint["lightning_jv5"]["data"] = data.training_state(self.trained_batches)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of an unknown format; in ``fit``, go on after the batches that have been trained on."""
        description = checkpoint_description(checkpoint, "The checkpoint")
        restore_frozen(checkpoint, self.student, description["frozen"])
        if self.trainer.state.fn == TrainerFn.FITTING:
            if "trained_batches" not in description:
                raise ValueError(
                    "The checkpoint does not say how many batches it was trained on, so the order of the rows cannot "
                    "be resumed. Start a new run from its weights: EmbeddingModule.load_from_checkpoint."
                )
            if isinstance(data := self._data, ResumableData):
                if "data" not in description:
                    raise ValueError(
                        "The checkpoint does not say what data it was trained on, so it cannot be told whether this "
                        "run's are the same. Start a new run from its weights: EmbeddingModule.load_from_checkpoint."
                    )
                data.resume_training(description["data"])
            self._resumed_batches = int(description["trained_batches"])

    @property
    def _data(self) -> Any:
        """The data module of the run, if it has one."""
        return getattr(self.trainer, "datamodule", None)

    @classmethod
    def load_from_checkpoint(  # type: ignore[override]
        cls,
        checkpoint_path: str | os.PathLike[str],
        map_location: Any = "cpu",
        *,
        strict: bool = True,
        **arguments: Any,
    ) -> Self:
        """Build the module that wrote a checkpoint, with its weights.

        Args:
            checkpoint_path: A ``.ckpt`` file; read with ``weights_only=True``.
            map_location: As in :func:`torch.load`.
            strict: Whether the checkpoint must hold exactly the module's weights.
            arguments: Constructor arguments that replace those in the checkpoint, or that it could not hold.

        Raises:
            ValueError: If the file is no checkpoint of this package, or of a newer format, or a folder that the ranks
                of ``ModelParallelStrategy`` wrote together.
        """
        path = Path(checkpoint_path)
        if path.is_dir():
            raise ValueError(
                f"Got the folder {str(path)!r}, to which each rank has written its part; need one file. Train with "
                "ModelParallelStrategy(save_distributed_checkpoint=False) to have one; fit(ckpt_path=...) under that "
                "strategy reads both."
            )
        checkpoint = torch.load(path, map_location=map_location, weights_only=True)
        description = checkpoint_description(checkpoint, str(path))
        kept = {name: rebuild(value) for name, value in description["arguments"].items() if name not in arguments}
        module = cls(**kept, **arguments)
        restore_frozen(checkpoint, module.student, description["frozen"])
        module.load_state_dict(checkpoint["state_dict"], strict=strict)
        return module.eval()


def trained_batches(trainer: Trainer) -> int:
    """Return how many batches the trainer has trained on, over all epochs."""
    progress: Any = trainer.fit_loop.epoch_loop.batch_progress.total
    return int(progress.processed)


def checkpoint_description(checkpoint: dict[str, Any], origin: str) -> dict[str, Any]:
    """Return what a checkpoint says of how to build its module and of its place in the data.

    Raises:
        ValueError: If it is no checkpoint of this version's format.
    """
    description: dict[str, Any] = checkpoint.get("lightning_jv5", {})
    if description.get("format") != CHECKPOINT_FORMAT:
        raise ValueError(
            f"{origin} has format {description.get('format')!r}; this version of lightning_jv5 reads "
            f"{CHECKPOINT_FORMAT}. Load it with the version that wrote it."
        )
    return description


def _has_finite_gradient(value: Tensor, parameters: Iterable[Tensor]) -> bool:
    gradients = torch.autograd.grad(value, list(parameters), retain_graph=True, allow_unused=True)
    return all(bool(torch.isfinite(gradient).all()) for gradient in gradients if gradient is not None)
