"""A sentence-transformers module with a LoRA adapter for each task, which is chosen in each call.

This file is part of a model's folder: ``SentenceTransformer(folder, trust_remote_code=True)`` runs it, and
``encode(texts, task="retrieval", prompt_name="query")`` then uses that task's adapter and prompts.

SPDX-License-Identifier: Apache-2.0
"""

from pathlib import Path
from typing import Any

from peft import PeftModel
from sentence_transformers.sentence_transformer.modules import Transformer


class TaskSwitchingTransformer(Transformer):  # type: ignore[misc]
    """The transformer in a folder, and the adapters under its ``adapters/``.

    Args:
        model_name_or_path: The folder, or its id on the hub.
        tasks: By task, its prompts by role: ``{"retrieval": {"query": "Query: ", "document": "Document: "}}``.
        without_task: The same for calls that use no adapter.
        roles: Role of each prompt of ``config_sentence_transformers.json``, in whose place the task's own is put.
        default_task: The task where a call names none: ``model_kwargs={"default_task": "retrieval"}``. None means the
            model without any adapter.
        settings: Those of ``Transformer``.

    Raises:
        ValueError: If there is no such task, or there are no adapters.
    """

    config_keys = [*Transformer.config_keys, "tasks", "without_task", "roles", "default_task"]  # noqa: RUF012
    forward_kwargs = {"task"}  # noqa: RUF012

    def __init__(
        self,
        model_name_or_path: str,
        *,
        tasks: dict[str, dict[str, str]],
        without_task: dict[str, str],
        roles: dict[str, str],
        default_task: str | None = None,
        **settings: Any,
    ) -> None:
        model_settings = dict(settings.pop("model_kwargs", None) or {})
        default_task = model_settings.pop("default_task", default_task)
        super().__init__(model_name_or_path, model_kwargs=model_settings, **settings)
        self.tasks, self.without_task, self.roles, self.default_task = tasks, without_task, roles, default_task
        self._chosen(None)  # is there a task of the default's name?
        adapters = self.load_dir_path(
            model_name_or_path,
            "adapters",
            token=model_settings.get("token"),
            cache_folder=model_settings.get("cache_dir"),
            revision=model_settings.get("revision"),
            local_files_only=model_settings.get("local_files_only", False),
        )
        if adapters is None:
            raise ValueError(f"{model_name_or_path!r} has no folder adapters. Download the model again.")
        first, *others = tasks
        adapted = PeftModel.from_pretrained(self.model, str(Path(adapters, first)), first)
        for task in others:
            adapted.load_adapter(str(Path(adapters, task)), task)
        self._adapted = (adapted.eval(),)  # PEFT changes the model itself; in a tuple, its weights are not there twice

    def preprocess(self, inputs: Any, prompt: str | None = None, task: str | None = None, **kwargs: Any) -> Any:
        """Tokenise texts, with the prompt that the task has for the role of ``prompt``."""
        chosen = self._chosen(task)
        if prompt in self.roles:
            prompt = (self.without_task if chosen is None else self.tasks[chosen])[self.roles[prompt]]
        return super().preprocess(inputs, prompt=prompt, **kwargs)

    def forward(self, features: dict[str, Any], task: str | None = None, **kwargs: Any) -> Any:
        """Compute token embeddings with the adapter of the task."""
        (adapted,) = self._adapted
        chosen = self._chosen(task)
        if chosen is None:
            with adapted.disable_adapter():
                return super().forward(features, **kwargs)
        adapted.set_adapter(chosen)
        return super().forward(features, **kwargs)

    def save(self, output_path: str, *args: Any, **kwargs: Any) -> None:
        """Write the model without adapters, its tokenizer, these settings, and the adapters."""
        (adapted,) = self._adapted
        weights = {
            key.replace(".base_layer.", "."): weight
            for key, weight in self.model.state_dict().items()
            if ".lora_" not in key
        }
        self.model.save_pretrained(output_path, state_dict=weights)
        self.processor.save_pretrained(output_path)
        self.save_config(output_path)
        adapted.save_pretrained(str(Path(output_path) / "adapters"))

    def _chosen(self, task: str | None) -> str | None:
        if task in (None, "query", "document"):  # encode_query and encode_document say the role here
            task = self.default_task
        if task is not None and task not in self.tasks:
            raise ValueError(f"Got task {task!r}; this model has adapters for {', '.join(self.tasks)}.")
        return task
