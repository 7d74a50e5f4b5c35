"""The student: a transformer that turns texts into embeddings."""

from typing import Any

from lightning_jv5.models.pooling import PoolingName
from lightning_jv5.models.settings import read_settings
from lightning_jv5.models.text_encoder import TextEncoder
from lightning_jv5.rebuildable import Rebuildable


class Embedder(Rebuildable, TextEncoder):
    """A trainable text encoder, from a folder, the hub, an installed package, or from nothing but a config.

    Where the folder is a sentence-transformers one, its pooling, prompts, limit and Dense layers are used, except where
    an argument says otherwise. Weights are float32 whatever the file holds; after loading the backbone is in evaluation
    mode, as transformers leaves it, until ``train()``.

    Args:
        path: A folder, a hub id, or ``package://name/sub/path`` inside an installed package.
        config: Instead of ``path``: a transformers config with ``model_type``, for random weights that depend on
            torch's seed. The vocabulary's size and padding token are the tokenizer's unless given.
        tokenizer: Path of another tokenizer than the model's own; needed with ``config``.
        layers: Which layers to keep, counted from 0, ascending; None keeps all.
        pooling: ``"last"``, ``"mean"`` or ``"cls"``.
        prompts: Text put before each text, by role: ``"query"``, ``"document"``. ``{}`` drops the folder's.
        max_length: Most tokens of a text, for all roles or by role; by default the folder's limit, else 512 or the
            model's number of positions.
        normalize: Whether embeddings have unit length.
        dropout: Replaces every dropout probability of the backbone.
        attention: transformers' attention implementation, or ``"packed"``: texts lie end to end and nothing is padded;
            made for GPUs in half precision; on a CPU hardly faster or slower than padded chunks of similar length.
        revision: Branch, tag or commit on the hub.
        trust_remote_code: Whether the hub repository's own Python code may run.
        max_tokens_per_chunk: Most padded tokens of one forward pass of the backbone.
        recompute: Compute each chunk again in the backward pass: the memory of one chunk for any batch size.

    Attributes:
        backbone: The transformer.
        tokenization: Text to token ids: :class:`~lightning_jv5.models.tokenization.Tokenization`.
        pooling: The pooling in use.
        dim: Dimension of an embedding.

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
        pooling: PoolingName | None = None,
        prompts: dict[str, str] | None = None,
        max_length: int | dict[str, int] | None = None,
        normalize: bool = True,
        dropout: float | None = None,
        attention: str | None = None,
        revision: str | None = None,
        trust_remote_code: bool = False,
        max_tokens_per_chunk: int = 16384,
        recompute: bool = False,
    ) -> None:
        settings = read_settings(
            path,
            config=config,
            tokenizer=tokenizer,
            pooling=pooling,
            prompts=prompts,
            max_length=max_length,
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
