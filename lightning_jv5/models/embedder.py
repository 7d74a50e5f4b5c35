"""The student: a transformer that turns texts into embeddings."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor

from lightning_jv5.data.batches import RaggedTexts
from lightning_jv5.models.adapter_folders import AdapterFolders
from lightning_jv5.models.backbone import recompute_each_layer
from lightning_jv5.models.fingerprint import fingerprint_of
from lightning_jv5.models.lora import (
    LoRA,
    active_adapter,
    adapter_in_use,
    adapter_names,
    add_lora,
    load_adapter,
    switch_adapter,
)
from lightning_jv5.models.pooling import PoolingName
from lightning_jv5.models.rope import rope_theta, set_rope_theta
from lightning_jv5.models.settings import read_settings
from lightning_jv5.models.text_encoder import TextEncoder
from lightning_jv5.models.tokenization import Tokenization
from lightning_jv5.rebuildable import Rebuildable


class Embedder(Rebuildable, TextEncoder):
    """A trainable text encoder, from a folder, the hub, an installed package, or from nothing but a config.

    Where the folder is a sentence-transformers one, its pooling, prompts, limit and Dense layers are used, except where
    an argument says otherwise. Weights are float32 whatever the file holds; after loading the backbone is in evaluation
    mode, as transformers leaves it, until ``train()``.

    With ``adapter`` everything is frozen but a new LoRA adapter. A folder with adapters under ``adapters/`` computes
    with that of ``task``, whose prompts and limits it then has; others can be asked for in each call, as
    ``encode(texts, task="clustering")``. The folder of an adapter alone is read together with the model it names.

    Args:
        path: A folder, a hub id, or ``package://name/sub/path`` inside an installed package.
        config: Instead of ``path``: a transformers config with ``model_type``, for random weights that depend on
            torch's seed. The vocabulary's size and padding token are the tokenizer's unless given.
        tokenizer: Path of another tokenizer than the model's own; needed with ``config``.
        layers: Which layers to keep, counted from 0, ascending; None keeps all.
        adapter: A LoRA adapter to train, on frozen weights.
        task: Which adapter of the folder to compute with; by default none, or that of an adapter's own folder.
        pooling: ``"last"``, ``"mean"`` or ``"cls"``.
        prompts: Text put before each text, by role: ``"query"``, ``"document"``. ``{}`` drops the folder's.
        max_length: Most tokens of a text, for all roles or by role; by default the folder's limit, else 512 or the
            model's number of positions.
        theta: Base of the rotary position embeddings in training; by default the folder's. Only for models that have
            them.
        inference_theta: The same in evaluation, and in the exported model; by default that of ``task``, else ``theta``.
        normalize: Whether embeddings have unit length.
        dropout: Replaces every dropout probability of the backbone.
        attention: transformers' attention implementation, or ``"packed"``: texts lie end to end and nothing is padded;
            made for GPUs in half precision; on a CPU hardly faster or slower than padded chunks of similar length.
        revision: Branch, tag or commit on the hub.
        trust_remote_code: Whether the hub repository's own Python code may run.
        max_tokens_per_chunk: Most padded tokens of one forward pass of the backbone.
        recompute: Compute each chunk again in the backward pass: the memory of one chunk for any batch size.
        recompute_layers: Compute each layer again in the backward pass (activation checkpointing): the memory of one
            layer, and a hidden state per layer, for texts of any length. Both together take least.

    Attributes:
        backbone: The transformer.
        tokenization: Text to token ids: :class:`~lightning_jv5.models.tokenization.Tokenization`.
        pooling: The pooling in use.
        dim: Dimension of an embedding.
        adapter: The adapter that is trained, if any.
        layers: The layers that were kept of those in the folder, if not all.
        folder: Where the frozen or initial weights come from: a resolved folder or hub id; None for random ones.

    Raises:
        ValueError: If a setting is wrong, missing, or does not fit the model.
    """

    def __init__(
        self,
        path: str | None = None,
        *,
        config: dict[str, Any] | None = None,
        tokenizer: str | None = None,
        layers: list[int] | None = None,
        adapter: LoRA | None = None,
        task: str | None = None,
        pooling: PoolingName | None = None,
        prompts: dict[str, str] | None = None,
        max_length: int | dict[str, int] | None = None,
        theta: float | None = None,
        inference_theta: float | None = None,
        normalize: bool = True,
        dropout: float | None = None,
        attention: str | None = None,
        revision: str | None = None,
        trust_remote_code: bool = False,
        max_tokens_per_chunk: int = 16384,
        recompute: bool = False,
        recompute_layers: bool = False,
    ) -> None:
        if adapter is not None and task is not None:
            raise ValueError(
                f"Got adapter {adapter.name!r}, to be trained, and task {task!r}, an adapter that there is; need at "
                "most one. Leave task out to train."
            )
        adapters = AdapterFolders(path, revision=revision)
        if adapter is not None and adapters.own_task is not None:
            raise ValueError(
                f"Got adapter {adapter.name!r}, to be trained, on {path!r}, which is itself an adapter, of the model "
                f"{adapters.model!r}. Give the path of the model."
            )
        task = task or adapters.own_task
        settings = read_settings(
            adapters.model,
            config=config,
            tokenizer=tokenizer,
            pooling=pooling,
            prompts=prompts if prompts is not None else adapters.prompts(task),
            max_length=max_length if max_length is not None else adapters.max_length(task),
            revision=revision,
            trust_remote_code=trust_remote_code,
        )
        super().__init__(
            settings.load_backbone(layers=layers, attention=attention, dropout=dropout),
            settings.tokenization,
            settings.pooling,
            dense=settings.load_dense(),
            dim=settings.dim,
            normalize=normalize,
            max_tokens_per_chunk=max_tokens_per_chunk,
            recompute=recompute,
            always_mask=trust_remote_code,
        )
        self.adapter, self.layers = adapter, layers
        self.folder = settings.source if isinstance(settings.source, str) else None
        self._adapters = adapters
        self._tokenizations: dict[str | None, Tokenization] = {None: self.tokenization}
        self._model_theta = rope_theta(self.backbone)
        of_none = inference_theta if inference_theta is not None else theta
        self._inference_thetas: dict[str | None, float | None] = {None: of_none}
        inference_theta = inference_theta if inference_theta is not None else adapters.inference_theta(task)
        self.theta, self.inference_theta = theta, inference_theta
        if theta is not None or inference_theta is not None:
            self.theta = theta if theta is not None else self._model_theta
            self.inference_theta = inference_theta if inference_theta is not None else theta
            for wanted in (theta, self.inference_theta):
                if wanted is not None:
                    set_rope_theta(self.backbone, wanted)
        if recompute_layers:
            recompute_each_layer(self.backbone)
        if adapter is not None:
            add_lora(self.backbone, adapter)
            self.dense.requires_grad_(False)
            self._tokenizations[adapter.name] = self.tokenization
            self._inference_thetas[adapter.name] = self.inference_theta
        elif task is not None:
            self._load(task)
            self.requires_grad_(False)
            self._tokenizations[task] = self.tokenization
            self._inference_thetas[task] = self.inference_theta
            switch_adapter(self.backbone, task)

    # Adapters

    @property
    def task(self) -> str | None:
        """Name of the adapter that embeddings are computed with, or None for the frozen model alone."""
        return active_adapter(self.backbone)

    @property
    def tasks(self) -> list[str]:
        """Names of the adapters that can be asked for: those in memory and those in the folder."""
        return list(dict.fromkeys([*adapter_names(self.backbone), *self._adapters.folders]))

    @contextlib.contextmanager
    def using(self, task: str | None) -> Iterator[None]:
        """Compute with one task's adapter, prompts, limits and RoPE theta, or with no adapter and the embedder's own.

        Raises:
            ValueError: If there is no such adapter, or it does not fit the model.
        """
        if task == self.task:
            yield
            return
        before, self.tokenization = self.tokenization, self._tokenization_of(task)
        try:
            with adapter_in_use(self.backbone, task):
                yield
        finally:
            self.tokenization = before

    @contextlib.contextmanager
    def without_adapter(self) -> Iterator[None]:
        """Compute with the frozen model alone, on the same token ids: the teacher of arXiv:2602.15547 eq. 8."""
        with adapter_in_use(self.backbone, None):
            yield

    def load_adapter(self, folder: str, name: str | None = None) -> str:
        """Load an exported adapter beside those that there are, to be asked for by its name.

        Args:
            folder: A folder that ``export`` or PEFT wrote.
            name: What to call it; by default its task.

        Returns:
            The name.

        Raises:
            ValueError: If the folder has no adapter, one that does not fit the model, or one of a name that is taken.
        """
        name = self._adapters.add(folder, name)
        try:
            self._load(name)
        except ValueError:
            self._adapters.remove(name)
            raise
        return name

    def _load(self, task: str) -> None:
        expected = self._adapters.base_fingerprint(task)
        if expected is not None and expected != fingerprint_of(self.state_dict()):
            raise ValueError(
                f"The adapter in {str(self._adapters.folder(task))!r} was trained on other weights than those of "
                f"{self.folder!r}. Give the model that it belongs to, with all layers."
            )
        device = next(self.backbone.parameters()).device
        load_adapter(self.backbone, task, self._adapters.folder(task))
        self.backbone.to(device)  # adapters are made on the CPU

    def _tokenization_of(self, task: str | None) -> Tokenization:
        if task is not None and task not in self.tasks:
            raise ValueError(
                f"Got task {task!r}; the embedder has adapters for {', '.join(self.tasks) or 'none'}. Use one of these "
                "names, or load_adapter first."
            )
        if task is not None and task not in adapter_names(self.backbone):
            self._load(task)
        if task not in self._tokenizations:
            prompts, limits = self._adapters.prompts(task), self._adapters.max_length(task)
            self._tokenizations[task] = self._tokenizations[None].replaced(prompts=prompts, max_length=limits)
        if task is not None and task not in self._inference_thetas:
            self._inference_thetas[task] = self._adapters.inference_theta(task)
        return self._tokenizations[task]

    # Encoding

    def encode(
        self,
        texts: Sequence[str],
        role: str = "document",
        *,
        task: str | None = None,
        truncate_dim: int | None = None,
        batch_size: int | None = None,
        progress: bool | None = False,
    ) -> Tensor:
        """Embed strings, in evaluation mode and without gradients: as :meth:`TextEncoder.encode`.

        Args:
            texts: Strings without prompt.
            role: ``"query"`` or ``"document"``: decides prompt and limit.
            task: Whose adapter, prompts, limits and theta to use; by default what the embedder uses anyway.
            truncate_dim: Keep only the first so many dimensions, normalised again.
            batch_size: Most texts of a forward pass; by default as many as ``max_tokens_per_chunk`` has room for.
            progress: Show a bar that counts texts; with None only where it takes longer than 2 seconds.

        Returns:
            Embeddings on the CPU, float32, shape ``(texts, dim)`` or ``(texts, truncate_dim)``.

        Raises:
            ValueError: As :meth:`TextEncoder.encode`; if there is no such task.
        """
        theta = rope_theta(self.backbone)
        try:
            with self.using(self.task if task is None else task):
                return super().encode(texts, role, truncate_dim=truncate_dim, batch_size=batch_size, progress=progress)
        finally:
            if theta is not None:  # a step that has not gone backward yet needs its own
                set_rope_theta(self.backbone, theta)

    def _embed_chunks(self, texts: RaggedTexts, lengths: Tensor, chunks: Sequence[Tensor]) -> Iterator[Tensor]:
        # Not restored afterwards: the backward pass may compute a chunk again
        inference_theta = self._inference_thetas.get(self.task) or self._inference_thetas[None]
        if (theta := (self.theta if self.training else inference_theta) or self._model_theta) is not None:
            set_rope_theta(self.backbone, theta)
        return super()._embed_chunks(texts, lengths, chunks)
