"""Token ids to embeddings, in chunks of similar length: what an embedder and a teacher share."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lightning_jv5.data.batches import RaggedTexts
from lightning_jv5.models.chunk_layouts import layout_of
from lightning_jv5.models.embedding_lookup import looked_up
from lightning_jv5.models.pooling import PoolingName
from lightning_jv5.models.sharding import as_many_as_any_rank, collective_passes, most_of_any_rank
from lightning_jv5.models.tokenization import Tokenization

_TEXTS_PER_BLOCK = 1024  # encode() holds the tokens of this many texts at a time
_BAR_DELAY = 2.0  # seconds


class TextEncoder(nn.Module):
    """A backbone, a pooling and what follows it, together with the tokenization they were made for.

    Where the backbone's weights are divided among ranks (FSDP2's ``fully_shard``, FSDP), each of its forward passes is
    a collective, and a rank with fewer chunks than another would leave that one waiting. Ranks then agree on the
    largest number of chunks, and those with fewer, or without any text, run passes over one padding token, of which
    nothing comes out and whose gradient is zero. So every rank must call :meth:`forward` and :meth:`encode` as often as
    the others, in the same order, with any number of texts.

    Args:
        backbone: Takes ``input_ids`` and ``attention_mask`` and returns an object with ``last_hidden_state``.
        tokenization: Makes the token ids that the backbone wants.
        pooling: ``"last"``, ``"mean"`` or ``"cls"``.
        dense: Layers after pooling.
        dim: Dimension of an embedding.
        normalize: Whether embeddings have unit length.
        max_tokens_per_chunk: Most tokens of one forward pass of the backbone, padding included.
        recompute: Whether the backward pass computes each chunk again rather than keeping its activations.
        always_mask: Whether the backbone needs an attention mask where nothing is padded, too.

    Raises:
        ValueError: If ``max_tokens_per_chunk`` is below 1.
    """

    def __init__(
        self,
        backbone: nn.Module,
        tokenization: Tokenization,
        pooling: PoolingName,
        *,
        dense: nn.Module,
        dim: int,
        normalize: bool,
        max_tokens_per_chunk: int,
        recompute: bool,
        always_mask: bool,
    ) -> None:
        super().__init__()
        if max_tokens_per_chunk < 1:
            raise ValueError(f"Got max_tokens_per_chunk {max_tokens_per_chunk}; need at least 1.")
        self.backbone = backbone
        self.tokenization = tokenization
        self.pooling: PoolingName = pooling
        self.dense = dense
        self.dim = dim
        self.normalize = normalize
        self.max_tokens_per_chunk = max_tokens_per_chunk
        self.recompute = recompute
        self._own_code = always_mask  # a backbone of the hub's own code may take nothing but token ids
        self._layout = layout_of(backbone, pad_token_id=tokenization.pad_token_id, always_mask=always_mask)

    def plan(self, lengths: Tensor) -> list[Tensor]:
        """Split texts into chunks for :meth:`forward`, as the backbone's layout (padded or packed) has it.

        Args:
            lengths: Tokens of each text, shape ``(texts,)``.
        """
        return self._layout.plan(lengths, self.max_tokens_per_chunk)

    def computed_tokens(self, lengths: Tensor) -> int:
        """Count the tokens that the planned chunks of these texts compute, padding included.

        Args:
            lengths: Tokens of each text, shape ``(texts,)``.
        """
        return self._layout.computed_tokens(lengths.cpu(), self.plan(lengths))

    def forward(self, texts: RaggedTexts, chunks: list[Tensor] | None = None) -> Tensor:
        """Embed texts.

        Args:
            texts: Token ids, on the device of the weights.
            chunks: Indices of the texts of each forward pass, every text once; None plans them by length. A chunk
                without texts is a pass whose result is dropped.

        Returns:
            Embeddings, float32, shape ``(texts, dim)``, in the order of ``texts``.

        Raises:
            ValueError: If ``chunks`` leaves a text out or has it twice, or a text has no token.
        """
        lengths = texts.lengths.cpu()
        if chunks is None:
            chunks = self.plan(lengths)
        device = texts.token_ids.device
        with collective_passes(self.backbone) as sharded:
            if sharded:
                chunks = as_many_as_any_rank(chunks, device)
            if not chunks:
                return torch.zeros(0, self.dim, device=device)
            order = torch.cat([chunk.cpu() for chunk in chunks])
            if not torch.equal(order.sort().values, torch.arange(len(texts))):
                raise ValueError(
                    f"Got chunks over the indices {order.tolist()[:20]} for {len(texts)} texts; every text must be in "
                    "exactly one chunk. Make them with plan(lengths) of the same texts."
                )
            embeddings = torch.cat(list(self._embed_chunks(texts, lengths, chunks)))
            return embeddings[order.argsort().to(device, non_blocking=True)]

    def encode(
        self,
        texts: Sequence[str],
        role: str = "document",
        *,
        truncate_dim: int | None = None,
        batch_size: int | None = None,
        progress: bool | None = False,
    ) -> Tensor:
        """Embed strings, in evaluation mode and without gradients; every module's mode is as before afterwards.

        Where the backbone is sharded, all ranks call this, each with texts of its own or with none.

        Args:
            texts: Strings without prompt; an empty one is encoded as the prompt and the special tokens alone.
            role: ``"query"`` or ``"document"``: decides prompt and limit.
            truncate_dim: Keep only the first so many dimensions, normalised again.
            batch_size: Most texts of a forward pass; by default as many as ``max_tokens_per_chunk`` has room for.
            progress: Show a bar that counts texts; with None only where it takes longer than 2 seconds.

        Returns:
            Embeddings on the CPU, float32, shape ``(texts, dim)`` or ``(texts, truncate_dim)``, in the order of
            ``texts``.

        Raises:
            ValueError: If ``texts`` is one string, an element is no string, the role is unknown,
                ``truncate_dim`` is not between 1 and ``dim``, or ``batch_size`` is below 1.
        """
        from tqdm.auto import tqdm

        _check_texts(texts)
        if truncate_dim is not None and not 1 <= truncate_dim <= self.dim:
            raise ValueError(f"Got truncate_dim {truncate_dim}; embeddings have {self.dim}. Give 1 to {self.dim}.")
        if batch_size is not None and batch_size < 1:
            raise ValueError(f"Got batch_size {batch_size}; need at least 1. Leave it out to fill forward passes.")
        self.tokenization([], role)  # an unknown role is an error even without texts
        result = torch.zeros(len(texts), truncate_dim or self.dim)
        device = next(self.parameters()).device
        # longest first: what does not fit into memory fails at once, and the bar's estimate errs on the safe side
        by_length = sorted(range(len(texts)), key=lambda index: -len(texts[index]))
        bar = tqdm(
            total=len(texts), unit="text", disable=progress is False, delay=_BAR_DELAY if progress is None else 0
        )
        blocks = -(-len(texts) // _TEXTS_PER_BLOCK)
        with evaluating(self), torch.inference_mode(), collective_passes(self.backbone) as sharded, bar:
            if sharded:
                blocks = most_of_any_rank(blocks, device)
            for block in range(blocks):
                rows = torch.tensor(by_length[block * _TEXTS_PER_BLOCK :][:_TEXTS_PER_BLOCK], dtype=torch.int64)
                ragged = self.tokenization.ragged([texts[row] for row in rows.tolist()], role)
                lengths = ragged.lengths
                chunks = self.plan(lengths)
                if batch_size is not None:
                    chunks = [part for chunk in chunks for part in torch.split(chunk, batch_size)]
                if sharded:
                    chunks = as_many_as_any_rank(chunks, device)
                ragged = RaggedTexts(ragged.token_ids.to(device), lengths.to(device))
                for chunk, embeddings in zip(chunks, self._embed_chunks(ragged, lengths, chunks), strict=True):
                    kept = embeddings[:, :truncate_dim]
                    if truncate_dim is not None and self.normalize:
                        kept = F.normalize(kept, dim=-1)
                    result[rows[chunk]] = kept.cpu()
                    bar.update(len(chunk))
        return result

    def _embed_chunks(self, texts: RaggedTexts, lengths: Tensor, chunks: Sequence[Tensor]) -> Iterator[Tensor]:
        """Yield the embeddings of each chunk; ``lengths`` is on the CPU, so shapes are known without waiting."""
        device = texts.token_ids.device
        one = torch.ones(1, dtype=torch.int64)
        dummy = RaggedTexts((one * self.tokenization.pad_token_id).to(device), one.to(device)), one, one * 0
        laid_out = [self._layout.lay_out(*((texts, lengths, chunk.cpu()) if len(chunk) else dummy)) for chunk in chunks]
        token_ids = [tokens for tokens, *_ in laid_out]
        tokens = token_ids if self._own_code else looked_up(self.backbone, token_ids)
        for chunk, inputs, (_, *others) in zip(chunks, tokens, laid_out, strict=True):
            if self.recompute and torch.is_grad_enabled():
                embeddings = checkpoint(self._embed_chunk, inputs, *others, use_reentrant=False)
            else:
                embeddings = self._embed_chunk(inputs, *others)
            # Of a chunk without texts nothing, in the graph all the same: its backward may be a collective
            yield embeddings[: len(chunk)]

    def _embed_chunk(self, *laid_out: Any) -> Tensor:
        pooled = self._layout.embed(self.backbone, self.pooling, *laid_out)
        # float32: under autocast a Dense would round cosines 0.980 and 0.981 to one number
        with torch.autocast(pooled.device.type, enabled=False):
            embedding: Tensor = self.dense(pooled)
            return F.normalize(embedding, dim=-1) if self.normalize else embedding


def _check_texts(texts: Sequence[str]) -> None:
    if isinstance(texts, str):
        raise ValueError(f"Got one string, {texts[:40]!r}; need a list of texts. Put it in a list.")
    for position, text in enumerate(texts):
        if not isinstance(text, str):
            raise ValueError(f"Text {position} is a {type(text).__name__}, {text!r:.40}; need strings.")


@contextlib.contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Put every submodule in evaluation mode, then each back in its own: a frozen part inside may differ."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode
