"""A model of ours as the ``mteb`` package wants an encoder: the adapter by the kind of task, the prompt by the role."""

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightning_jv5.data.cache import fingerprint
from lightning_jv5.models.embedder import Embedder
from lightning_jv5.models.fingerprint import fingerprint_of

if TYPE_CHECKING:
    from mteb.abstasks.task_metadata import TaskMetadata
    from mteb.models.model_meta import ModelMeta
    from mteb.types import PromptType

ADAPTER_OF = {
    "Retrieval": "retrieval",
    "Reranking": "retrieval",
    "InstructionRetrieval": "retrieval",
    "InstructionReranking": "retrieval",
    "STS": "text-matching",
    "PairClassification": "text-matching",
    "BitextMining": "text-matching",
    "Summarization": "text-matching",
    "Clustering": "clustering",
    "Classification": "classification",
    "MultilabelClassification": "classification",
    "ZeroShotClassification": "classification",
    "Regression": "classification",
}


def adapter_for(
    task_type: str, available: Collection[str], chosen: Mapping[str, str | None] | None = None
) -> str | None:
    """Name the adapter for a type of mteb task: that of its kind among the four of arXiv:2602.15547.

    Args:
        task_type: Such as ``"Reranking"``: what mteb calls ``task.metadata.type``.
        available: Names of the adapters that there are.
        chosen: Other adapters than the usual ones, by type; None for the model alone.

    Returns:
        The name, or None for the model alone, as where there are no adapters.

    Raises:
        ValueError: If the type is none of texts, or its adapter is not among those that there are.

    >>> adapter_for("Reranking", ["retrieval", "clustering"])
    'retrieval'
    >>> adapter_for("STS", ["retrieval", "clustering"], {"STS": None}), adapter_for("STS", [])
    (None, None)
    """
    if task_type not in ADAPTER_OF:
        raise ValueError(
            f"Got a task of type {task_type!r}; need one of {', '.join(ADAPTER_OF)}. Leave out those of other media."
        )
    if not available:
        return None
    wanted = {**ADAPTER_OF, **(chosen or {})}[task_type]
    if wanted is not None and wanted not in available:
        raise ValueError(
            f"Got a task of type {task_type!r}, for the adapter {wanted!r}; the model has {', '.join(available)}. "
            f"Say what to use in its place: adapters={{{task_type!r}: None}} is the model alone."
        )
    return wanted


class MTEBEncoder:
    """An encoder for ``mteb.evaluate``, of version 2 of https://github.com/embeddings-benchmark/mteb (extra ``eval``).

    Queries get the prompt and limit of queries, all other texts those of documents, as in our own tasks; each type of
    task is computed with the adapter of its use (:func:`adapter_for`). A model without adapters computes all of them
    alone, and one that is used with a certain adapter, as ``Embedder(path, task="retrieval")`` or the folder of an
    adapter, all of them with that. A folder without adapters can also be evaluated as sentence-transformers reads it:
    ``mteb.evaluate(SentenceTransformer(path), tasks)``.

    mteb keeps scores by name and revision of the model, and takes them up again. The revision given here tells weights,
    adapters, prompts and limits, so scores of another model of the same name are never mistaken for this one's.

    Args:
        model: Path of a model, as :class:`Embedder` takes it, or an embedder.
        adapters: Other adapters than the usual ones, by type of task: ``{"STS": "retrieval"}``; None for the model
            alone.
        truncate_dim: Keep only the first so many dimensions, normalised again.
        device: Such as ``"cuda:1"``; by default a GPU if there is one for a path, and where it is for an embedder.
        name: How mteb calls the model: ``organization/name``; by default ``lightning_jv5/`` and the folder's name.

    Attributes:
        embedder: The model.
        mteb_model_meta: How mteb knows it.

    Raises:
        ValueError: If an adapter does not exist or does not fit the model, a type of task is unknown, or the name or
            ``truncate_dim`` is wrong; if mteb is not installed.

    Example::

        import mteb

        tasks = mteb.get_tasks(["SciFact", "STSBenchmark", "Banking77Classification"])
        mteb.evaluate(lightning_jv5.MTEBEncoder("models/jina"), tasks)
    """

    def __init__(
        self,
        model: str | Embedder,
        *,
        adapters: Mapping[str, str | None] | None = None,
        truncate_dim: int | None = None,
        device: str | None = None,
        name: str | None = None,
    ) -> None:
        self.embedder = Embedder(model) if isinstance(model, str) else model
        if device is not None or isinstance(model, str):
            self.embedder.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        if truncate_dim is not None and not 1 <= truncate_dim <= self.embedder.dim:
            raise ValueError(
                f"Got truncate_dim {truncate_dim}; embeddings have {self.embedder.dim}. Give 1 to {self.embedder.dim}."
            )
        self.adapters, self.truncate_dim = dict(adapters or {}), truncate_dim
        _check_adapters(self.adapters, self.embedder.tasks)
        if name is None:
            path = model if isinstance(model, str) else self.embedder.folder
            name = f"lightning_jv5/{Path(path).name if path is not None else 'embedder'}"
        self.mteb_model_meta = self._described(name)

    def adapter(self, task_type: str) -> str | None:
        """Name the adapter that a type of task is computed with; None for the model alone.

        Raises:
            ValueError: If the type is none of texts, or there is no such adapter.
        """
        own = self.embedder.task
        chosen = self.adapters if own is None else {**dict.fromkeys(ADAPTER_OF, own), **self.adapters}
        return adapter_for(task_type, self.embedder.tasks, chosen)

    def encode(
        self,
        inputs: Iterable[Mapping[str, Any]],
        *,
        task_metadata: "TaskMetadata",
        hf_split: str = "",
        hf_subset: str = "",
        prompt_type: "PromptType | None" = None,
        batch_size: int | None = None,
        show_progress_bar: bool = True,
    ) -> NDArray[np.float32]:
        """Embed texts of a task.

        Args:
            inputs: Batches with a ``text`` column, such as mteb's loader gives them.
            task_metadata: Says the type of task.
            hf_split: Not used.
            hf_subset: Not used.
            prompt_type: Whether these are queries; by default documents.
            batch_size: Not used: texts of similar length are computed together, so many as the embedder's
                ``max_tokens_per_chunk`` lets it.
            show_progress_bar: Show a bar that counts texts.

        Returns:
            Embeddings, shape ``(texts, dim)`` or ``(texts, truncate_dim)``, of unit length if the model's are.

        Raises:
            ValueError: If the inputs have no text, the type of task is none of texts, or there is no adapter for it.
        """
        adapter = self.adapter(task_metadata.type)
        texts: list[str] = []
        for batch in inputs:
            if "text" not in batch:
                raise ValueError(
                    f"Got inputs with {', '.join(batch)}, of the task {task_metadata.name!r}; need text. Leave out the "
                    "tasks of other media."
                )
            texts.extend(batch["text"])
        role = "document" if prompt_type is None else prompt_type.value
        with self.embedder.using(adapter):
            embeddings = self.embedder.encode(texts, role, truncate_dim=self.truncate_dim, progress=show_progress_bar)
        found: NDArray[np.float32] = embeddings.numpy()
        return found

    def similarity(self, embeddings1: NDArray[Any] | Tensor, embeddings2: NDArray[Any] | Tensor) -> Tensor:
        """Return the cosine of each of some embeddings with each of others, shape ``(first, second)``."""
        from mteb.similarity_functions import cos_sim

        return torch.as_tensor(cos_sim(embeddings1, embeddings2))

    def similarity_pairwise(self, embeddings1: NDArray[Any] | Tensor, embeddings2: NDArray[Any] | Tensor) -> Tensor:
        """Return the cosine of each pair of embeddings, shape ``(pairs,)``."""
        from mteb.similarity_functions import pairwise_cos_sim

        return torch.as_tensor(pairwise_cos_sim(embeddings1, embeddings2))

    def _described(self, name: str) -> "ModelMeta":
        try:
            from mteb.models.model_meta import ModelMeta, ScoringFunction
        except ImportError as error:
            raise ValueError(
                f"MTEBEncoder needs the package mteb, version 2 ({error}). Run: pip install 'lightning-jv5[eval]'"
            ) from error
        if "/" not in name:
            raise ValueError(f"Got the name {name!r}; mteb needs organization/name. Put a word and a slash before it.")
        embedder = self.embedder
        tokenizations = {}
        for adapter in [None, *embedder.tasks]:
            with embedder.using(adapter):  # loads it, so that one that does not fit is found before hours of encoding
                tokenizations[str(adapter)] = embedder.tokenization
        weights = embedder.state_dict()
        revision = fingerprint(
            fingerprint_of(weights),
            {task: fingerprint_of(weights, adapter=task) for task in embedder.tasks},
            {name: [{**one.prompts}, {**one.max_length}] for name, one in tokenizations.items()},
            [embedder.task, embedder.pooling, embedder.normalize, embedder.inference_theta],
        )
        settings = {"truncate_dim": self.truncate_dim, "adapters": self.adapters or None}
        return ModelMeta.create_empty(
            {
                "name": name,
                "revision": revision,
                "n_parameters": sum(weight.numel() for weight in embedder.parameters()),
                "max_tokens": max(max(one.max_length.values()) for one in tokenizations.values()),
                "embed_dim": self.truncate_dim or embedder.dim,
                "framework": ["PyTorch"],
                "similarity_fn_name": ScoringFunction.COSINE,
                "use_instructions": any(any(one.prompts.values()) for one in tokenizations.values()),
                "experiment_kwargs": {key: value for key, value in settings.items() if value is not None} or None,
            }
        )


def _check_adapters(adapters: Mapping[str, str | None], available: Collection[str]) -> None:
    for task_type, adapter in adapters.items():
        if task_type not in ADAPTER_OF:
            raise ValueError(
                f"Got an adapter for tasks of type {task_type!r}; need one of {', '.join(ADAPTER_OF)}. Write it alike."
            )
        if adapter is not None and adapter not in available:
            raise ValueError(
                f"Got the adapter {adapter!r} for {task_type!r}; the model has {', '.join(available) or 'none'}. "
                "Use one of these names, or None for the model alone."
            )
