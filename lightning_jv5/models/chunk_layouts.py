"""How the texts of a chunk lie in what the backbone is called with: padded to one length, or packed end to end."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lightning_jv5.data.batches import RaggedTexts
from lightning_jv5.models.backbone import first_position
from lightning_jv5.models.chunks import padded_tokens, plan_chunks, plan_packed_chunks
from lightning_jv5.models.embedding_lookup import input_name
from lightning_jv5.models.packed_attention import is_packed
from lightning_jv5.models.pooling import PoolingName, pool, pool_packed


class Layout(ABC):
    """Plans chunks, lays one out, and gets its embeddings from the backbone."""

    @abstractmethod
    def plan(self, lengths: Tensor, max_tokens: int) -> list[Tensor]:
        """Split texts of these lengths into chunks of at most so many computed tokens."""

    @abstractmethod
    def computed_tokens(self, lengths: Tensor, chunks: Sequence[Tensor]) -> int:
        """Count the tokens that the chunks compute, padding included."""

    @abstractmethod
    def lay_out(self, texts: RaggedTexts, lengths: Tensor, chunk: Tensor) -> tuple[Any, ...]:
        """Return the arguments of :meth:`embed` for the texts of a chunk, token ids first.

        Args:
            texts: Token ids, on the device of the weights.
            lengths: Their lengths on the CPU, so that shapes are known without waiting for the device.
            chunk: Indices of the texts, int64 on the CPU, shape ``(texts of the chunk,)``.
        """

    @abstractmethod
    def embed(self, backbone: nn.Module, pooling: PoolingName, *laid_out: Any) -> Tensor:
        """Return the pooled embeddings of the chunk, float32, shape ``(texts of the chunk, dim)``.

        Instead of the token ids there may be their rows of the backbone's embedding table.
        """


def layout_of(backbone: nn.Module, *, pad_token_id: int, always_mask: bool) -> Layout:
    """Return the layout that a backbone was loaded for."""
    return Packed(first_position(backbone.config)) if is_packed(backbone) else Padded(pad_token_id, always_mask)


class Padded(Layout):
    """Texts of similar length as rows of a rectangle.

    Args:
        pad_token_id: What fills the rows.
        always_mask: Whether the backbone needs an attention mask where nothing is padded, too.
    """

    def __init__(self, pad_token_id: int, always_mask: bool) -> None:
        self.pad_token_id, self.always_mask = pad_token_id, always_mask

    def plan(self, lengths: Tensor, max_tokens: int) -> list[Tensor]:
        """See :func:`~lightning_jv5.models.chunks.plan_chunks`."""
        return plan_chunks(lengths, max_tokens)

    def computed_tokens(self, lengths: Tensor, chunks: Sequence[Tensor]) -> int:
        """See :func:`~lightning_jv5.models.chunks.padded_tokens`."""
        return padded_tokens(lengths, chunks)

    def lay_out(self, texts: RaggedTexts, lengths: Tensor, chunk: Tensor) -> tuple[Any, ...]:
        """Return token ids and mask, of shape ``(texts, longest)``, and whether the backbone needs the mask."""
        device = texts.token_ids.device
        chunk_lengths = lengths[chunk]
        width = int(chunk_lengths.max())
        column = torch.arange(width, device=device)
        start = (lengths.cumsum(0) - lengths)[chunk].to(device, non_blocking=True)
        mask = column < chunk_lengths.to(device, non_blocking=True).unsqueeze(1)
        source = torch.where(mask, start.unsqueeze(1) + column, 0)
        token_ids = torch.where(mask, texts.token_ids[source], self.pad_token_id)
        return token_ids, mask, self.always_mask or int(chunk_lengths.min()) < width

    def embed(self, backbone: nn.Module, pooling: PoolingName, *laid_out: Any) -> Tensor:
        """Run the backbone, and pool each row."""
        tokens, mask, needs_mask = laid_out
        # bool would do for most attention kernels, but models of the hub expect the tokenizer's integers
        inputs: dict[str, Any] = {input_name(tokens): tokens, "attention_mask": mask.long() if needs_mask else None}
        output = backbone(**inputs)
        return pool(output.last_hidden_state, mask, pooling)


class Packed(Layout):
    """Texts end to end in one row, for a backbone with packed attention: no padding.

    Args:
        first_position: Position of a text's first token.
    """

    def __init__(self, first_position: int) -> None:
        self.first_position = first_position

    def plan(self, lengths: Tensor, max_tokens: int) -> list[Tensor]:
        """See :func:`~lightning_jv5.models.chunks.plan_packed_chunks`."""
        return plan_packed_chunks(lengths, max_tokens)

    def computed_tokens(self, lengths: Tensor, chunks: Sequence[Tensor]) -> int:
        """Count the tokens of the texts."""
        return sum(int(lengths[chunk].sum()) for chunk in chunks)

    def lay_out(self, texts: RaggedTexts, lengths: Tensor, chunk: Tensor) -> tuple[Any, ...]:
        """Return token ids and positions, shape ``(1, tokens)``, bounds, shape ``(texts + 1,)``, and longest length."""
        device = texts.token_ids.device
        chunk_lengths = lengths[chunk]
        bounds = torch.nn.functional.pad(chunk_lengths.cumsum(0), (1, 0))
        within = torch.arange(int(bounds[-1])) - bounds[:-1].repeat_interleave(chunk_lengths)
        source = (lengths.cumsum(0) - lengths)[chunk].repeat_interleave(chunk_lengths) + within
        token_ids = texts.token_ids[source.to(device, non_blocking=True)].unsqueeze(0)
        position_ids = (within + self.first_position).to(device, non_blocking=True).unsqueeze(0)
        return token_ids, position_ids, bounds.to(device, torch.int32, non_blocking=True), int(chunk_lengths.max())

    def embed(self, backbone: nn.Module, pooling: PoolingName, *laid_out: Any) -> Tensor:
        """Run the backbone, and pool each text."""
        tokens, position_ids, bounds, longest = laid_out
        inputs: dict[str, Any] = {input_name(tokens): tokens}
        output = backbone(
            **inputs,
            position_ids=position_ids,
            cu_seq_lens_q=bounds,
            cu_seq_lens_k=bounds,
            max_length_q=longest,
            max_length_k=longest,
        )
        return pool_packed(output.last_hidden_state[0], bounds, pooling)
