"""A model and its adapters that sentence-transformers switches between, by code that lies in the folder."""

import json
import shutil
from pathlib import Path

import torch

from lightning_jv5.data.cache import write_json
from lightning_jv5.export.adapters_layout import Written, write_model_and_adapters
from lightning_jv5.export.model_parts import ModelParts
from lightning_jv5.models.model_folder import ADAPTERS, DESCRIPTION
from lightning_jv5.models.sentence_transformers_folder import TASK_SWITCHING

PEFT_DEFAULT = "default"  # PEFT's own name of an adapter that was given none
_MODULES, _TRANSFORMER = "modules.json", "sentence_bert_config.json"


def write_switching(parts: ModelParts, folder: Path, *, task: str | None, dtype: torch.dtype) -> Written:
    """Write model, adapters, and :mod:`~lightning_jv5.export.task_switching`, which loads and switches them.

    Args:
        parts: The model and its adapters.
        folder: Where to; exists.
        task: The task of calls that name none; without, they use no adapter.
        dtype: Of the written weights of the model.

    Raises:
        ValueError: As for :func:`~lightning_jv5.export.adapters_layout.write_model_and_adapters`; if a task has the
            name of a role, or the one that PEFT saves as if it had none.
    """
    if clash := sorted({"query", "document"} & set(parts.tasks)):
        raise ValueError(
            f"Got an adapter named {clash[0]!r}, which encode_{clash[0]} of sentence-transformers uses for the role. "
            "Give it another name."
        )
    if PEFT_DEFAULT in parts.tasks:
        raise ValueError(
            f"Got an adapter named {PEFT_DEFAULT!r}, which PEFT writes without a folder of its own: a copy that "
            f"sentence-transformers saves would lose it. Name it for its task: rename {ADAPTERS}/{PEFT_DEFAULT}, or "
            f"change task in {DESCRIPTION} of an adapter's own folder."
        )
    written = write_model_and_adapters(parts, folder, task=task, dtype=dtype)
    code, _, _ = TASK_SWITCHING.partition(".")
    shutil.copyfile(Path(__file__).with_name(f"{code}.py"), folder / f"{code}.py")
    modules = json.loads((folder / _MODULES).read_text(encoding="utf-8"))
    modules[0] |= {"type": TASK_SWITCHING, "kwargs": ["task"]}
    write_json(folder / _MODULES, modules)
    settings = json.loads((folder / _TRANSFORMER).read_text(encoding="utf-8"))
    # A task may put its own in place of an empty prompt, too. Where both roles have one prompt, so has every task, and
    # either role stands for both
    query, document = written.prompts["query"], written.prompts["document"]
    roles = {document: "document"} if query == document else {query: "query", document: "document"}
    tasks = {name: one.prompts for name, one in written.adapters.items()}
    settings |= {"tasks": tasks, "without_task": written.model.prompts, "roles": roles, "default_task": task}
    write_json(folder / _TRANSFORMER, settings)
    return written
