"""What a stage hands over: a folder with the student or its adapter, the projection, and how they were made."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from lightning_jv5.data.cache import atomic_folder, write_json
from lightning_jv5.export.machine_paths import TRAINING_CONFIG, forget_machine
from lightning_jv5.export.model_card import read_written, write_model_card
from lightning_jv5.export.output_folder import check_output
from lightning_jv5.export.score_files import SCORES, read_scores
from lightning_jv5.export.sentence_transformers_layout import write_sentence_transformers
from lightning_jv5.losses import Loss
from lightning_jv5.models.embedder import Embedder
from lightning_jv5.models.fingerprint import fingerprint_of
from lightning_jv5.models.frozen_weights import restore_frozen
from lightning_jv5.models.lora import save_adapter
from lightning_jv5.models.model_folder import DESCRIPTION, PROJECTION, ModelFolder, read_model_folder
from lightning_jv5.models.projection import Projection
from lightning_jv5.models.rope import rope_theta
from lightning_jv5.module import checkpoint_description
from lightning_jv5.rebuildable import rebuild

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Exported:
    """What :func:`export` wrote.

    Attributes:
        folder: Where to.
        description: What it is.
        files: Sizes in bytes by name.
    """

    folder: Path
    description: ModelFolder
    files: dict[str, int]

    def summary(self) -> str:
        """Say in a few lines what was written, and what to do with it."""
        kind = self.description.kind
        what = "the model" if kind == "model" else f"the adapter {self.description.task!r} of {self.description.base}"
        width = max(map(len, self.files))
        files = [f"  {name:<{width}}  {size / 1e6:8.2f} MB" for name, size in self.files.items()]
        start = f"  The next stage starts from it: --from={self.folder}"
        join = f"  Join adapters to one model: python -m lightning_jv5 assemble --adapters=[{self.folder}, ...] ..."
        return "\n".join([f"{self.folder}: {what}", *files, start if kind == "model" else join])


def export(
    ckpt_path: str,
    output: str,
    *,
    overwrite: bool = False,
    projection: str | None = None,
    dtype: Literal["float32", "bfloat16"] = "float32",
    scores: str | None = None,
    license: str | None = None,  # named as the hub's front matter names it
) -> Exported:
    """Write the model folder of a stage from its checkpoint: safetensors and JSON, all of it or nothing.

    A student that was trained whole becomes a sentence-transformers folder; one with an adapter becomes PEFT's folder
    of the adapter alone, which names the model that it belongs to. Either holds the objective's projection, prompts and
    limits, RoPE thetas and how it was trained (``lightning_jv5.json``, and the run's config where it lies beside the
    checkpoint). A whole model says nothing of where it was made, and has a card, ``README.md``; an adapter gets there
    with ``assemble`` or ``convert``.

    Args:
        ckpt_path: A ``.ckpt`` file of a run, such as ``runs/small/version_0/checkpoints/best.ckpt``; read with
            ``weights_only=True``.
        output: The folder to write.
        overwrite: Whether a model that is there may be replaced.
        projection: Which projection to keep, where the objective has several: its dotted name, such as
            ``terms.distill.projection``.
        dtype: Of the backbone's weights in the file; an adapter is float32.
        scores: What was measured, for the card of the model, or that of ``assemble`` or ``convert``: the
            ``scores.json`` of ``validate`` or ``test``, or the folder of their run.
        license: The license in the card of a whole model, as the hub abbreviates it: ``apache-2.0``. Without, the card
            gives none.

    Returns:
        What was written.

    Raises:
        ValueError: If there is no such checkpoint or file of scores, the folder exists, or there are several
            projections.
    """
    if dtype not in DTYPES:
        raise ValueError(f"Got dtype {dtype!r}; need float32 or bfloat16.")
    file, folder = Path(ckpt_path), Path(output)
    if not file.is_file():
        raise ValueError(f"Got ckpt_path {ckpt_path!r}, but there is no such file. Checkpoints end with .ckpt.")
    check_output(folder, overwrite)
    measured = read_scores(scores)
    checkpoint = torch.load(file, map_location="cpu", weights_only=True)
    described = checkpoint_description(checkpoint, ckpt_path)
    arguments = described["arguments"]
    if lacking := [name for name in ("student", "objective") if name not in arguments]:
        raise ValueError(
            f"{ckpt_path!r} does not say how to build its {' and '.join(lacking)}: a class of your own that does not "
            "inherit from lightning_jv5.Rebuildable. Let it, and save again."
        )
    student, objective = rebuild(arguments["student"]), rebuild(arguments["objective"])
    restore_frozen(checkpoint, student, described["frozen"])
    for part, name in ((student, "student"), (objective, "objective")):
        part.load_state_dict(_below(checkpoint["state_dict"], name))
    trained = {
        "steps": int(checkpoint["global_step"]),
        "batches": int(described["trained_batches"]),
        "objective": arguments["objective"],
        "watched": {name: float(value) for name, value in objective.watched(checkpoint["global_step"]).items()},
    }
    kept = _projection(objective, projection)
    with atomic_folder(folder, replace=overwrite) as building:
        description = _write(student, building, trained, dtype)
        if kept is not None:
            _write_projection(kept, building)
        config = file.parent.parent / "config.yaml"
        if config.is_file():
            shutil.copyfile(config, building / TRAINING_CONFIG)
        write_json(building / DESCRIPTION, description.to_plain())
        if measured is not None:
            write_json(building / SCORES, measured)
        if description.kind == "model":  # an adapter alone has to say where its model lies
            forget_machine(building)
            write_model_card(building, "stage", read_written(building), name=folder.resolve().name, license=license)
    files = {path.relative_to(folder).as_posix(): path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    return Exported(folder, read_model_folder(folder) or description, dict(sorted(files.items())))


def _below(state: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    return {key.removeprefix(f"{name}."): tensor for key, tensor in state.items() if key.startswith(f"{name}.")}


def _write(student: Embedder, folder: Path, trained: dict[str, Any], dtype: str) -> ModelFolder:
    tokenization = student.tokenization
    theta = student.theta if student.theta is not None else rope_theta(student.backbone)
    inference_theta = student.inference_theta if student.inference_theta is not None else theta
    common: dict[str, Any] = {
        "prompts": tokenization.prompts,
        "max_length": tokenization.max_length,
        "dim": student.dim,
        "theta": theta,
        "inference_theta": inference_theta,
        "trained": trained,
    }
    if student.adapter is None:
        write_sentence_transformers(student, folder, inference_theta=inference_theta, dtype=DTYPES[dtype])
        return ModelFolder("model", **common)
    if student.folder is None or student.layers is not None:
        raise ValueError(
            f"Got the adapter {student.adapter.name!r} on {'random weights' if student.folder is None else 'layers'} "
            f"{'' if student.layers is None else f'{student.layers} of a model'}, which nobody could find again. "
            "Export the model first, and train the adapter from that folder."
        )
    save_adapter(student.backbone, student.adapter.name, folder, base=student.folder)
    return ModelFolder(
        "adapter",
        task=student.adapter.name,
        base=student.folder,
        base_fingerprint=fingerprint_of(student.state_dict()),
        **common,
    )


def _projection(objective: Loss, name: str | None) -> Projection | None:
    """Return the objective's projection of student embeddings: the one that is named, or the only one."""
    found = {key: part for key, part in objective.named_modules() if isinstance(part, Projection)}
    if name is not None:
        if name not in found:
            raise ValueError(f"Got projection {name!r}; the objective has {', '.join(found) or 'none'}.")
        return found[name]
    students = [key for key in found if not key.endswith("teacher_projection")]
    if len(students) > 1:
        raise ValueError(
            f"The objective has the projections {', '.join(students)}; say which one the next stage shall start from: "
            f"--projection={students[0]}"
        )
    return found[students[0]] if students else None


def _write_projection(projection: Projection, folder: Path) -> None:
    from safetensors.torch import save_file

    tensors = {"weight": projection.weight, "bias": projection.bias}
    save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, str(folder / PROJECTION))
