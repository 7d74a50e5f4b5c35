"""Attention over texts laid end to end, each within itself: nothing is padded, and nothing is computed in vain.

An implementation for transformers' ``AttentionInterface``
(https://huggingface.co/docs/transformers/attention_interface), which hands on what the backbone is called with:
``cu_seq_lens_q``, the bounds of the texts, and ``max_length_q``.
"""

import importlib.util
import inspect
import itertools
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PACKED = "packed"  # how users call it
_REGISTERED = "lightning_jv5_packed"
_NOT_COMPUTED = ("softcap", "s_aux", "position_bias")  # what changes scores or their sum in some models


def registered_name() -> str:
    """Register packed attention with transformers, and return the name that a config calls it by.

    No mask function is registered: transformers then makes no mask at all.
    """
    from transformers import AttentionInterface

    AttentionInterface.register(_REGISTERED, packed_attention_forward)
    return _REGISTERED


def is_packed(backbone: nn.Module) -> bool:
    """Whether the backbone was loaded with packed attention, so wants its texts end to end."""
    return getattr(getattr(backbone, "config", None), "_attn_implementation", None) == _REGISTERED


def check_packable(backbone: nn.Module) -> None:
    """Check that a backbone asks transformers' interface for its attention, and takes the positions of its tokens.

    Raises:
        ValueError: If it does not.
    """
    asks = getattr(backbone, "_supports_attention_backend", False)
    positions = "position_ids" in inspect.signature(backbone.forward).parameters
    if not (asks and positions):
        raise ValueError(
            f"Got attention {PACKED!r} for a {type(backbone).__name__}, which "
            f"{'takes no position_ids' if asks else 'does not let others compute its attention'}; need a model "
            "such as BERT, Qwen3 or EuroBERT. Leave attention out for this one."
        )


def packed_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bounds: Tensor,
    max_length: int,
    *,
    causal: bool,
    scale: float | None = None,
    dropout: float = 0.0,
) -> Tensor:
    """Attend within each of several texts that lie end to end.

    In half precision on a GPU a variable-length kernel does it at once: torch's, or where there is dropout
    ``flash-attn``'s, if it is installed. Elsewhere, texts of one length that follow one another share a call.

    Args:
        query: Shape ``(heads, total_tokens, head_dim)``.
        key: Shape ``(key_value_heads, total_tokens, head_dim)``; each serves as many query heads as the others.
        value: Shape as ``key``.
        bounds: Where each text starts, and the end of the last; int32, ascending, shape ``(texts + 1,)``.
        max_length: Tokens of the longest text.
        causal: Whether a token sees only those before it and itself.
        scale: Multiplies the dot products; by default ``head_dim ** -0.5``.
        dropout: Probability of dropping an attention weight.

    Returns:
        Shape ``(heads, total_tokens, head_dim)``.

    >>> value = torch.tensor([[[1.0], [3.0], [5.0]]])  # one head, texts of two tokens and of one
    >>> packed_attention(torch.zeros(1, 3, 1), torch.zeros(1, 3, 1), value, torch.tensor([0, 2, 3]), 2, causal=False)
    tensor([[[2.],
             [2.],
             [5.]]])
    """
    if query.is_cuda and torch.is_autocast_enabled("cuda"):  # casts for torch's own attention, but for no kernel
        query, key, value = (part.to(torch.get_autocast_dtype("cuda")) for part in (query, key, value))
    attend = _kernel(query, dropout) or _attend_by_length
    return attend(query, key, value, bounds=bounds, max_length=max_length, causal=causal, scale=scale, dropout=dropout)


def packed_attention_forward(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None = None,
    *,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    sliding_window: int | None = None,
    cu_seq_lens_q: Tensor | None = None,
    max_length_q: int | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """:func:`packed_attention` as transformers calls it: tensors ``(1, heads, tokens, dim)`` in, heads third out.

    Raises:
        ValueError: If the backbone was called with padded texts, or asks for what this does not compute: a window that
            is narrower than a text, soft-capped scores, biases.
    """
    if cu_seq_lens_q is None or max_length_q is None or attention_mask is not None or len(query) != 1:
        raise ValueError(
            "Got padded texts for a backbone with packed attention; need them end to end, in one row, with "
            "cu_seq_lens_q and max_length_q. Call the embedder, which does that, or load it without attention: packed."
        )
    asked = [name for name in _NOT_COMPUTED if others.get(name) is not None]
    if sliding_window is not None and sliding_window < max_length_q:
        asked.append(f"a window of {sliding_window} for a text of {max_length_q} tokens")
    if asked:
        raise ValueError(
            f"{type(module).__name__} asks for {', '.join(asked)}, which packed attention does not compute. Leave "
            "attention out for this model."
        )
    if is_causal is None:
        is_causal = getattr(module, "is_causal", True) and getattr(getattr(module, "config", None), "is_causal", True)
    attended = packed_attention(
        query[0],
        key[0],
        value[0],
        cu_seq_lens_q,
        max_length_q,
        causal=bool(is_causal),
        scale=scaling,
        dropout=dropout,
    )
    return attended.transpose(0, 1).unsqueeze(0), None


def _kernel(query: Tensor, dropout: float) -> Callable[..., Tensor] | None:
    """Return the variable-length kernel that can compute this, if there is one."""
    half = query.dtype in (torch.float16, torch.bfloat16)
    if not (query.is_cuda and half and torch.cuda.get_device_capability(query.device) >= (8, 0)):
        return None
    if not dropout:
        return _attend_by_torch_kernel
    return _attend_by_flash_attn if importlib.util.find_spec("flash_attn") is not None else None


def _attend_by_length(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    bounds: Tensor,
    causal: bool,
    scale: float | None,
    dropout: float,
    **_: Any,
) -> Tensor:
    """Call torch's attention once for each run of texts of one length."""
    parts, start = [], 0
    for length, run in itertools.groupby(bounds.diff().tolist()):
        texts = len(list(run))
        end = start + texts * length
        shape = (-1, texts, length, query.shape[-1])
        attended = F.scaled_dot_product_attention(
            query[:, start:end].reshape(shape).transpose(0, 1),  # (texts, heads, length, head_dim)
            key[:, start:end].reshape(shape).transpose(0, 1),
            value[:, start:end].reshape(shape).transpose(0, 1),
            dropout_p=dropout,
            is_causal=causal,
            scale=scale,
            enable_gqa=len(key) != len(query),
        )
        parts.append(attended.transpose(0, 1).flatten(1, 2))
        start = end
    return torch.cat(parts, dim=1)


def _attend_by_torch_kernel(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    bounds: Tensor,
    max_length: int,
    causal: bool,
    scale: float | None,
    dropout: float,  # not offered by this kernel
) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn

    attended: Any = varlen_attn(
        query.transpose(0, 1),
        key.transpose(0, 1),
        value.transpose(0, 1),
        cu_seq_q=bounds,
        cu_seq_k=bounds,
        max_q=max_length,
        max_k=max_length,
        scale=scale,
        window_size=(-1, 0) if causal else (-1, -1),
        enable_gqa=len(key) != len(query),
    )
    result: Tensor = attended.transpose(0, 1)
    return result


def _attend_by_flash_attn(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    bounds: Tensor,
    max_length: int,
    causal: bool,
    scale: float | None,
    dropout: float,
) -> Tensor:
    from flash_attn import flash_attn_varlen_func  # type: ignore[import-not-found]

    attended: Tensor = flash_attn_varlen_func(
        query.transpose(0, 1),
        key.transpose(0, 1),
        value.transpose(0, 1),
        cu_seqlens_q=bounds,
        cu_seqlens_k=bounds,
        max_seqlen_q=max_length,
        max_seqlen_k=max_length,
        dropout_p=dropout,
        softmax_scale=scale,
        causal=causal,
    )
    return attended.transpose(0, 1)
