"""From a model folder of ours to one that others load: the layouts, by name."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Protocol

import torch

from lightning_jv5.data.cache import atomic_folder, write_json
from lightning_jv5.export.adapters_layout import Written
from lightning_jv5.export.jina_v5_layout import write_jina_v5
from lightning_jv5.export.machine_paths import TRAINING_CONFIG, copy_plain, write_description
from lightning_jv5.export.merged_layout import MERGED_TASK, write_merged
from lightning_jv5.export.model_card import write_model_card
from lightning_jv5.export.model_parts import ModelParts, read_model_parts
from lightning_jv5.export.output_folder import check_output
from lightning_jv5.export.score_files import SCORE_FILES, SCORES, read_scores
from lightning_jv5.export.stage import DTYPES
from lightning_jv5.export.switching_layout import write_switching
from lightning_jv5.models.embedder import Embedder
from lightning_jv5.models.fingerprint import fingerprint_of
from lightning_jv5.models.model_folder import ADAPTERS

Layout = Literal["merged", "switching", "jina_v5"]


class WriteLayout(Protocol):
    """Writes a model and its adapters to a folder that exists."""

    def __call__(self, parts: ModelParts, folder: Path, *, task: str | None, dtype: torch.dtype) -> Written:
        """Write them."""


LAYOUTS: Mapping[str, WriteLayout] = {
    "merged": write_merged,
    "switching": write_switching,
    "jina_v5": write_jina_v5,
}
_HOW = {
    "merged": "SentenceTransformer(folder) loads it",
    "switching": "SentenceTransformer(folder, trust_remote_code=True) loads it; encode(..., task=...) switches",
    "jina_v5": "for engines that know JinaEmbeddingsV5Model, and merge a task's adapter as they load",
}


@dataclass(frozen=True)
class Converted:
    """What :func:`convert` wrote.

    Attributes:
        folder: Where to.
        layout: How it is laid out.
        tasks: Whose adapters it has, or has merged.
    """

    folder: Path
    layout: str
    tasks: list[str]

    def summary(self) -> str:
        """Say in two lines what was written, and what reads it."""
        what = f"{self.folder}: the layout {self.layout}, for {', '.join(self.tasks)}."
        return f"{what}\n  {_HOW[self.layout]}. README.md shows how."


def convert(
    model: str,
    output: str,
    layout: Layout,
    *,
    task: str | None = None,
    dtype: Literal["float32", "bfloat16"] = "float32",
    name: str | None = None,
    license: str | None = None,  # named as the hub's front matter names it
    language: list[str] | None = None,
    base_model: str | None = None,
    scores: str | None = None,
    overwrite: bool = False,
) -> Converted:
    """Write a model and its adapters as a folder that others load without lightning_jv5, with a model card.

    ``merged``: one task's adapter folded into the weights, ``W + B A (alpha / rank)``; a plain sentence-transformers
    model. ``switching``: model and adapters, between which ``SentenceTransformer.encode(..., task=...)`` switches by
    code in the folder; transformers and PEFT load it too. ``jina_v5``: model and adapters by the names and keys of the
    published jina-embeddings-v5-text models, which are Qwen3 and EuroBERT.

    A folder says nothing of where it was made, and may be moved.

    Args:
        model: A folder that ``export``, ``assemble`` or ``recipe`` wrote: with adapters, or an adapter's own.
        output: The folder to write.
        layout: How to lay it out.
        task: Whose adapter to merge; for ``switching`` the task of calls that name none.
        dtype: Of the backbone's weights in the file; adapters are float32.
        name: What the card calls the model, and its examples load: later ``owner/name`` on the hub; by default the name
            of the folder.
        license: The card's license, as the hub abbreviates it: ``apache-2.0``. Without, the card gives none: it is for
            the owner of model and data to say.
        language: Codes of the languages, for the card: ``[en, de]``.
        base_model: Hub id of the model that training started from, for the card; by default the one that the training
            config names, if any.
        scores: What was measured, for the card: the ``scores.json`` of ``validate`` or ``test``, or the folder of their
            run; by default those in the model's folder, or of the adapter that is merged.
        overwrite: Whether a model that is there may be replaced.

    Returns:
        What was written.

    Raises:
        ValueError: If the layout or task is unknown, the folder has no model or no adapters, there are no such scores,
            or the output exists.

    Example::

        convert("models/small", "models/small-retrieval", "merged", task="retrieval")
    """
    if layout not in LAYOUTS:
        raise ValueError(f"Got layout {layout!r}; need one of {', '.join(LAYOUTS)}.")
    if dtype not in DTYPES:
        raise ValueError(f"Got dtype {dtype!r}; need {' or '.join(DTYPES)}.")
    folder = Path(output)
    check_output(folder, overwrite)
    measured = read_scores(scores)
    parts = read_model_parts(model)
    if task is not None and parts.tasks:
        parts.adapters.folder(task)  # refuses a task that there is none of
    with atomic_folder(folder, replace=overwrite) as building:
        written = LAYOUTS[layout](parts, building, task=task, dtype=DTYPES[dtype])
        tasks = [str(written.model.trained[MERGED_TASK])] if layout == "merged" else parts.tasks
        for config in parts.model.glob(f"*{TRAINING_CONFIG}"):  # several, if the model has a task merged already
            copy_plain(config, building / config.name)
        if layout == "merged":
            copy_plain(parts.adapters.folder(tasks[0]) / TRAINING_CONFIG, building / f"{tasks[0]}_{TRAINING_CONFIG}")
        for file in SCORE_FILES:
            copy_plain(parts.folder / file, building / file)
        if layout == "merged":
            copy_plain(parts.adapters.folder(tasks[0]) / SCORES, building / SCORES)
        if measured is not None:
            write_json(building / SCORES, measured)
        if layout != "jina_v5":  # which this package does not load either
            _describe(written, building)
        write_model_card(
            building,
            layout,
            written,
            name=name or folder.resolve().name,
            license=license,
            language=language,
            base_model=base_model,
        )
    return Converted(folder, layout, tasks)


def _describe(written: Written, folder: Path) -> None:
    write_description(folder, written.model)
    if written.adapters:
        fingerprint = fingerprint_of(Embedder(str(folder)).state_dict())  # other weights than before, if rounded
    for task, one in written.adapters.items():
        adapter = replace(one, kind="adapter", task=task, base_fingerprint=fingerprint)
        write_description(folder / ADAPTERS / task, adapter)
