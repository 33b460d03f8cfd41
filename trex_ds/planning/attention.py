"""Attention as a fused kernel keeps and counts it, for the meta device, where torch has only the unfused form."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import sdpa_backward_flop_count, sdpa_flop_count

PLANNED = "planned"


class FusedAttention(torch.autograd.Function):
    """Keeps what flash and memory-efficient kernels keep: q, k, v, the output, one float32 a row, and the mask."""

    flops = 0
    """Operations of all passes so far; torch counts only its own kernels."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        """Query (batch, heads, seq, width), key and value (batch, key heads, seq, width) -> as query."""
        FusedAttention.flops += sdpa_flop_count(query.shape, key.shape, value.shape)
        if mask is not None:  # torch makes numbers of a mask of booleans, once a layer
            mask = torch.zeros_like(mask, dtype=query.dtype)
        batch, heads, seq, _ = query.shape
        out = query.new_empty(batch, seq, heads, value.shape[3]).transpose(1, 2)  # as kernels lay it out
        log_sum = query.new_empty(batch, heads, seq, dtype=torch.float32)
        ctx.save_for_backward(query, key, value, mask, out, log_sum)
        return out

    @staticmethod
    def backward(ctx: Any, dout: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of query, key and value."""
        query, key, value, *_ = ctx.saved_tensors
        FusedAttention.flops += sdpa_backward_flop_count(dout.shape, query.shape, key.shape, value.shape)
        return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value), None


def _attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **_: Any
) -> tuple[Tensor, None]:
    from transformers.integrations.sdpa_attention import repeat_kv, use_gqa_in_sdpa

    if key.shape[1] != query.shape[1] and not use_gqa_in_sdpa(mask, key, value):
        key, value = (repeat_kv(t, query.shape[1] // t.shape[1]) for t in (key, value))
    return FusedAttention.apply(query, key, value, mask).transpose(1, 2).contiguous(), None


def register() -> None:
    """Let transformers know of `PLANNED`; it makes no mask of its own."""
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(PLANNED, _attention)
    AttentionMaskInterface.register(PLANNED, lambda *_, **__: None)
