"""A model without adapters, and its adapters beside it: what the layouts that keep adapters have in common."""

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from lightning_jv5.export.machine_paths import TRAINING_CONFIG, copy_plain, forget_machine
from lightning_jv5.export.model_parts import ModelParts
from lightning_jv5.export.score_files import SCORES
from lightning_jv5.export.sentence_transformers_layout import write_sentence_transformers
from lightning_jv5.models.lora import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from lightning_jv5.models.model_folder import ADAPTERS, ModelFolder


@dataclass(frozen=True)
class Written:
    """What a layout wrote.

    Attributes:
        model: What the model is, without adapters or with one in its weights.
        adapters: What each task's adapter is, where there are adapters in the folder.
        prompts: Prompts by name, as ``config_sentence_transformers.json`` has them.
    """

    model: ModelFolder
    adapters: dict[str, ModelFolder]
    prompts: dict[str, str]


def write_model_and_adapters(parts: ModelParts, folder: Path, *, task: str | None, dtype: torch.dtype) -> Written:
    """Write a model as sentence-transformers lays it out, and under ``adapters/`` its adapters as PEFT does.

    A folder has one pair of prompts for all tasks: those of ``task``, else of the model, or the first that tell a query
    from a document.

    Args:
        parts: The model and its adapters.
        folder: Where to; exists.
        task: Whose prompts come first.
        dtype: Of the written weights of the model.

    Raises:
        ValueError: If there are no adapters, or they infer with different RoPE thetas.
    """
    if not parts.tasks:
        raise ValueError(
            f"Got the model {str(parts.folder)!r}, which has no adapters; this layout is one of adapters. "
            "SentenceTransformer loads the folder as it is."
        )
    embedder = parts.embedder()
    model = parts.description(embedder)
    adapters = {name: parts.description(embedder, name) for name in parts.tasks}
    thetas = sorted({one.inference_theta or 0.0 for one in adapters.values()})
    if len(thetas) > 1:
        raise ValueError(
            f"The adapters of {str(parts.folder)!r} infer with the RoPE thetas {', '.join(map(str, thetas))}, and one "
            "config.json has one. Convert each by itself, to the layout merged."
        )
    everyone = [adapters[task]] if task is not None else []
    everyone += [model, *adapters.values()]
    limits = {role: max(one.max_length[role] for one in everyone) for role in model.max_length}
    prompts = shared_prompts([one.prompts for one in everyone])
    embedder.tokenization = embedder.tokenization.replaced(prompts=prompts, max_length=limits)
    write_sentence_transformers(embedder, folder, inference_theta=thetas[0] or None, dtype=dtype)
    model = replace(model, inference_theta=thetas[0] or None)
    for name in parts.tasks:
        _copy_adapter(parts.adapters.folder(name), folder / ADAPTERS / name)
    return Written(model, adapters, prompts)


def shared_prompts(candidates: list[dict[str, str]]) -> dict[str, str]:
    """Choose the prompts that a call names by role: the first that tell the roles apart, else the first there are.

    >>> shared_prompts([{"query": "", "document": ""}, {"query": "Query: ", "document": "Document: "}])
    {'query': 'Query: ', 'document': 'Document: '}
    """
    telling = [prompts for prompts in candidates if prompts["query"] != prompts["document"]]
    given = [prompts for prompts in candidates if any(prompts.values())]
    return dict((telling or given or candidates)[0])


def _copy_adapter(source: Path, target: Path) -> None:
    target.mkdir(parents=True)
    for file in (ADAPTER_WEIGHTS, ADAPTER_CONFIG, TRAINING_CONFIG):
        if (source / file).is_file():
            shutil.copyfile(source / file, target / file)
    copy_plain(source / SCORES, target / SCORES)
    forget_machine(target)
