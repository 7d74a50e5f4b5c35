"""Look at embeddings themselves: files for TensorBoard's projector, and for the one on the web."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from lightning_jv5.callbacks.report import run_folder
from lightning_jv5.callbacks.view_evaluation import ViewEvaluation
from lightning_jv5.data.cache import atomic_file, atomic_folder
from lightning_jv5.tasks import EmbeddedTexts, Evaluation, EvaluationTask, View

_MOST_CHARACTERS = 160
_FOLDER = "projector"


@dataclass
class _Sample:
    """What is kept of a pass: a place for each text that was drawn, those of one role beside each other."""

    rows: Mapping[str, Tensor]  # of each role, ascending
    first: Mapping[str, int]  # place of the first of each role
    vectors: Tensor
    times_seen: Tensor


class EmbeddingProjector(ViewEvaluation):
    """Let TensorBoard's projector show the embeddings of a task, at the end of ``fit``, ``validate`` or ``test``.

    The files ``vectors.tsv`` and ``metadata.tsv`` are written to ``projector/val.<task>.step-<step>`` in the run's
    folder: those of the last pass that saw every text. https://projector.tensorflow.org loads them too. Where
    TensorBoard is used, it shows all of them under "Projector". Each text comes with its role, its row and, where the
    task has :meth:`~lightning_jv5.tasks.EvaluationTask.labels`, its label: choose one of them under "Color by".

    Args:
        task: Name of the evaluation task.
        max_texts: Most texts; of more, a random sample, the same every time.
        label: What the column of labels is called.

    Raises:
        ValueError: If ``max_texts`` is below 1, ``label`` is the name of another column; at setup, if there is no such
            task.

    >>> EmbeddingProjector("small", max_texts=500).max_texts
    500
    """

    def __init__(self, task: str, max_texts: int = 2000, label: str = "label") -> None:
        if max_texts < 1:
            raise ValueError(f"Got max_texts {max_texts}; need at least 1. Raise it.")
        if label in ("text", "role", "row", ""):
            raise ValueError(f"Got label {label!r}, the name of another column; need one of its own. Rename it.")
        self.task, self.max_texts, self.label = task, max_texts, label
        self._sample: _Sample | None = None
        self._name = ""
        self._ready: tuple[Tensor, list[list[str]]] | None = None  # vectors and rows of metadata, the heading first

    def views(self) -> list[View]:
        """Return the whole embedding."""
        return [View()]

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse a task that is not there."""
        self._ready = None
        datamodule: Any = getattr(trainer, "datamodule", None)
        if hasattr(datamodule, "tasks"):
            known = list(dict.fromkeys([*datamodule.tasks("validate"), *datamodule.tasks("test")]))
            if self.task not in known:
                raise ValueError(
                    f"EmbeddingProjector got the task {self.task!r} and evaluation tasks {known}; need one of them. "
                    "Correct the name."
                )

    def _begin(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._sample = None
        super()._begin(trainer, pl_module)

    def see(self, trainer: Trainer, evaluation: Evaluation, embedded: EmbeddedTexts) -> None:
        """Keep the texts of a batch that are in the sample."""
        if embedded.task != self.task:
            return
        if self._sample is None:
            rows = sampled_rows(evaluation.tasks[self.task], self.max_texts)
            counts = [len(of) for of in rows.values()]
            first = {role: sum(counts[:place]) for place, role in enumerate(rows)}
            vectors = torch.zeros(sum(counts), embedded.embeddings.shape[1])
            self._sample = _Sample(rows, first, vectors, torch.zeros(sum(counts), 1))
        drawn, rows_here = self._sample.rows[embedded.role], embedded.rows.cpu()
        if not len(drawn):
            return
        place = torch.searchsorted(drawn, rows_here).clamp(max=len(drawn) - 1)
        kept = (drawn[place] == rows_here).nonzero().flatten()
        place = place[kept] + self._sample.first[embedded.role]
        self._sample.vectors[place] = embedded.embeddings[kept.to(embedded.embeddings.device)].float().cpu()
        self._sample.times_seen[place] = 1

    def finish(self, trainer: Trainer, pl_module: LightningModule, prefix: str, evaluation: Evaluation) -> None:
        """Gather the sample from all ranks, each of which has seen a part."""
        sample, self._sample = self._sample, None
        if sample is None:
            return
        vectors, times_seen = (
            trainer.strategy.reduce(part.to(pl_module.device), reduce_op="sum").cpu()
            for part in (sample.vectors, sample.times_seen)
        )
        self._name = f"{prefix}.{self.task}.step-{trainer.global_step}"
        # What every rank encodes has been added up as often as there are ranks
        self._ready = vectors / times_seen, metadata_rows(evaluation.tasks[self.task], sample.rows, self.label)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the last validation of the run."""
        self._write(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the pass, unless it is one of many in a run."""
        if trainer.state.fn == TrainerFn.VALIDATING:
            self._write(trainer)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the pass."""
        self._write(trainer)

    def _write(self, trainer: Trainer) -> None:
        ready, self._ready = self._ready, None
        if ready is None or not trainer.is_global_zero:
            return
        home = run_folder(trainer) / _FOLDER
        write_projection(home / self._name, *ready)
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                write_projector_config(Path(logger.log_dir), home)


def sampled_rows(task: EvaluationTask, max_texts: int) -> dict[str, Tensor]:
    """Draw texts from all parts of a task together, the same every time.

    Args:
        task: A prepared task.
        max_texts: Most texts.

    Returns:
        Rows of each role, ascending; int64.
    """
    counts = {part.role: len(part.texts) for part in task.parts()}
    total = sum(counts.values())
    drawn = torch.randperm(total, generator=torch.Generator().manual_seed(0))[:max_texts].sort().values
    rows, before = {}, 0
    for role, count in counts.items():
        rows[role] = drawn[(drawn >= before) & (drawn < before + count)] - before
        before += count
    return rows


def metadata_rows(task: EvaluationTask, rows: Mapping[str, Tensor], label: str) -> list[list[str]]:
    """Return a heading and a row for each text: the text, its label where the task has some, its role and its row."""
    parts = {part.role: part.texts for part in task.parts()}
    labels = {role: task.labels(role) for role in parts}
    has_labels = any(labels.values())
    table = [["text", *([label] if has_labels else []), "role", "row"]]
    for role, drawn in rows.items():
        of_role = labels[role]
        for row in drawn.tolist():
            cells = [one_cell(parts[role][row])]
            if has_labels:
                cells.append(one_cell(of_role[row] if of_role else ""))
            table.append([*cells, role, str(row)])
    return table


def one_cell(text: str) -> str:
    r"""Keep a text to what fits a cell of a TSV file.

    >>> one_cell("a\tb\nc"), one_cell(" ")
    ('a b c', '(empty)')
    """
    line = " ".join(text.split())
    return (line if len(line) <= _MOST_CHARACTERS else f"{line[: _MOST_CHARACTERS - 1]}…") or "(empty)"


def write_projection(folder: Path, vectors: Tensor, metadata: Sequence[Sequence[str]]) -> None:
    """Write ``vectors.tsv`` and ``metadata.tsv``: both or neither, in place of what was there.

    Args:
        folder: Where to.
        vectors: Shape ``(texts, dim)``.
        metadata: A heading and a row for each text.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp(), "val.small.step-0")
    >>> write_projection(folder, torch.eye(2), [["text", "role"], ["a", "query"], ["b", "query"]])
    >>> (folder / "vectors.tsv").read_text().split()
    ['1', '0', '0', '1']
    """
    import numpy as np

    with atomic_folder(folder, replace=True) as building:
        np.savetxt(building / "vectors.tsv", vectors.numpy(), fmt="%.6g", delimiter="\t")
        lines = ["\t".join(row) for row in metadata]
        (building / "metadata.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_projector_config(log_folder: Path, home: Path) -> None:
    """Tell TensorBoard of all projections of a run.

    Args:
        log_folder: Where TensorBoard's own files of the run are.
        home: Folder of the projections; the config names them from the log folder, so that both may move together.

    >>> import tempfile
    >>> run = Path(tempfile.mkdtemp())
    >>> (run / "projector" / "val.small.step-0").mkdir(parents=True)
    >>> write_projector_config(run / "logs", run / "projector")
    >>> print((run / "logs" / "projector_config.pbtxt").read_text(), end="")
    embeddings {
      tensor_name: "val.small.step-0"
      tensor_path: "../projector/val.small.step-0/vectors.tsv"
      metadata_path: "../projector/val.small.step-0/metadata.tsv"
    }
    """
    blocks = []
    for folder in sorted(path for path in home.iterdir() if not path.name.startswith(".")):
        place = Path(os.path.relpath(folder, log_folder)).as_posix()
        fields = {
            "tensor_name": folder.name,
            "tensor_path": f"{place}/vectors.tsv",
            "metadata_path": f"{place}/metadata.tsv",
        }
        lines = [f"  {name}: {json.dumps(value, ensure_ascii=False)}\n" for name, value in fields.items()]
        blocks.append(f"embeddings {{\n{''.join(lines)}}}\n")
    with atomic_file(log_folder / "projector_config.pbtxt") as file:
        file.write_text("".join(blocks), encoding="utf-8")
