"""Matrix products in bfloat16, also on CPUs that have no instructions for them.

There torch multiplies bfloat16 matrices in plain loops, up to a hundred times slower than it takes to
convert both to float32, multiply and convert back (benchmarks/products.py measures it). On other machines
these functions are torch's own.
"""

from __future__ import annotations

from functools import cache, partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

_ATTENTION = "sdpa_in_float32"


@cache
def cpu_lacks_bfloat16() -> bool:
    """Whether this machine's CPU has no matrix products of its own for bfloat16."""
    return not torch.ops.mkldnn._is_mkldnn_bf16_supported()


def needs_float32(tensor: Tensor) -> bool:
    """Whether products of `tensor` are better done in float32."""
    return tensor.dtype is torch.bfloat16 and tensor.device.type == "cpu" and cpu_lacks_bfloat16()


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """`a @ b` in a's dtype, summed in float32."""
    return (a.float() @ b.float()).to(a.dtype) if needs_float32(a) else a @ b


def addmm(y: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """`y + a @ b` in y's dtype, summed in float32."""
    return (y + a.float() @ b.float()).to(y.dtype) if needs_float32(a) else torch.addmm(y, a, b)


class _Linear(torch.autograd.Function):
    # A function of its own, because autograd would keep the float32 copy of the weight until backward.
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x if weight.requires_grad else None, weight)
        y = x.float() @ weight.float().t()
        return (y if bias is None else y + bias.float()).to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        dy = dy.float()
        dx = (dy @ weight.float()).to(weight.dtype) if ctx.needs_input_grad[0] else None
        dweight = (dy.flatten(0, -2).t() @ x.float().flatten(0, -2)).to(weight.dtype) if x is not None else None
        dbias = dy.flatten(0, -2).sum(dim=0).to(weight.dtype) if ctx.needs_input_grad[2] else None
        return dx, dweight, dbias


def use_float32_products(model: nn.Module) -> None:
    """Let bfloat16 linears and `sdpa` attention of `model` multiply in float32 if the CPU would be slow at it.

    Its weights stay in bfloat16.
    """
    if not cpu_lacks_bfloat16():
        return
    for module in model.modules():
        if type(module) is nn.Linear:
            module.forward = partial(_forward, module)  # type: ignore[method-assign]
    if getattr(getattr(model, "config", None), "_attn_implementation", None) == "sdpa":
        _register_attention()
        cast(Any, model).set_attn_implementation(_ATTENTION)


def _register_attention() -> None:
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward
    from transformers.masking_utils import sdpa_mask

    def attention(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Any, **kwargs: Any) -> Any:
        if not needs_float32(query):
            return sdpa_attention_forward(module, query, key, value, mask, **kwargs)
        # The mask is of booleans, so it serves both types.
        y, weights = sdpa_attention_forward(module, query.float(), key.float(), value.float(), mask, **kwargs)
        return y.to(query.dtype), weights

    AttentionInterface.register(_ATTENTION, attention)
    AttentionMaskInterface.register(_ATTENTION, sdpa_mask)


def _forward(module: nn.Linear, x: Tensor) -> Tensor:
    if needs_float32(x):
        return _Linear.apply(x, module.weight, module.bias)
    return nn.functional.linear(x, module.weight, module.bias)
