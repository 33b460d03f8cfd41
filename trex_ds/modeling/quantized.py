"""Linears in 4 bits (QLoRA's nf4 with double quantization, arXiv 2305.14314) that ZeRO-3 can shard.

bitsandbytes quantizes and dequantizes. Its own layer is not used, for three reasons: it keeps each gathered
weight from forward to backward, it leaves the quantization constants whole on every rank, and on some CPUs
it rewrites its weight when it is evaluated. Here one flat parameter holds all of a weight, so what ZeRO-3
shards is everything, and what it gathers is one tensor.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from trex_ds.bf16_matmul import needs_float32
from trex_ds.modeling.config import NF4
from trex_ds.modeling.mixers import read_without_a_call

_BLOCK = 64
"""Weights that share a constant."""
_NESTED_BLOCK = 256
"""Constants that share a constant of their own."""


class Linear4bit(nn.Linear):
    """A frozen linear with its weight in nf4; computes in the input's type.

    Args:
        linear: torch's or GPT-2's, whose sizes, bias and type it takes; its weight is not read.

    Raises:
        ValueError: for a weight with an odd number of elements.
    """

    def __init__(self, linear: nn.Linear | Conv1D):
        nn.Module.__init__(self)
        self.transposed = isinstance(linear, Conv1D)
        """Whether the weight is saved as (in_features, out_features)."""
        sizes = (linear.nx, linear.nf) if isinstance(linear, Conv1D) else (linear.in_features, linear.out_features)
        self.in_features, self.out_features = sizes
        if self.in_features * self.out_features % 2:
            raise ValueError(
                f"a linear of {self.in_features} x {self.out_features} weights cannot be packed in pairs; "
                "use model.quantization: null"
            )
        # The type of the computation, so that ZeRO-3 shards and gathers it with its neighbors.
        dtype = linear.weight.dtype
        size = packed_bytes(self.out_features, self.in_features) // dtype.itemsize
        self.weight = nn.Parameter(torch.empty(size, dtype=dtype, device="meta"), requires_grad=False)
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        """(..., in_features) -> (..., out_features)."""
        y = _Product.apply(x, self)
        return y if self.bias is None else y + self.bias.to(y.dtype)

    def dequantized(self, dtype: torch.dtype) -> Tensor:
        """The weight, (out_features, in_features)."""
        # bitsandbytes knows no float64.
        known = torch.float32 if dtype == torch.float64 else dtype
        return unpack(self.weight, (self.out_features, self.in_features), known).to(dtype)


def use_linears_in_4_bits(model: PreTrainedModel) -> None:
    """Replace the linears of a causal language model by empty ones in 4 bits.

    Its output head stays, and so do linears whose weights are read without a call.
    """
    head = model.get_output_embeddings()
    for path, module in list(model.named_modules()):
        parent, _, name = path.rpartition(".")
        if not isinstance(module, Conv1D) and (type(module) is not nn.Linear or module is head):
            continue
        if name not in read_without_a_call(model.get_submodule(parent)):
            model.set_submodule(path, Linear4bit(module))


class _Product(torch.autograd.Function):
    # Keeps the module and no weight: in the backward pass ZeRO-3 has gathered it again, and it is dequantized again.
    @staticmethod
    def forward(ctx: Any, x: Tensor, module: Linear4bit) -> Tensor:
        ctx.module = module
        weight = module.dequantized(_product_dtype(x))
        return nn.functional.linear(x.to(weight.dtype), weight).to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, None]:
        if not ctx.needs_input_grad[0]:
            return None, None
        weight = ctx.module.dequantized(_product_dtype(dy))
        return (dy.to(weight.dtype) @ weight).to(dy.dtype), None


def _product_dtype(x: Tensor) -> torch.dtype:
    return torch.float32 if needs_float32(x) else x.dtype


def packed_bytes(rows: int, columns: int) -> int:
    """Bytes of a packed weight: a half for each, one for each block, four for each block of blocks, and an offset.

    Padded to whole elements of any floating type.
    """
    weights = rows * columns
    blocks = math.ceil(weights / _BLOCK)
    size = weights // 2 + blocks + 4 * math.ceil(blocks / _NESTED_BLOCK) + 4
    return math.ceil(size / 8) * 8


def pack(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """Quantize (rows, columns) to one flat tensor of `dtype`, whose bits mean nothing as numbers."""
    from bitsandbytes.functional import quantize_4bit

    four_bits, state = quantize_4bit(
        weight.contiguous(), blocksize=_BLOCK, compress_statistics=True, quant_type=NF4, quant_storage=torch.uint8
    )
    parts = [four_bits, state.absmax, state.state2.absmax.float(), state.offset.float()]
    flat = torch.cat([part.reshape(-1).contiguous().view(torch.uint8) for part in parts])
    padding = packed_bytes(*weight.shape) - len(flat)
    return nn.functional.pad(flat, (0, padding)).view(dtype)


def unpack(packed: Tensor, shape: tuple[int, int], dtype: torch.dtype) -> Tensor:
    """The weight that `pack` quantized, up to quantization, in `dtype` (bfloat16, float16 or float32)."""
    from bitsandbytes.functional import QuantState, dequantize_4bit

    blocks = math.ceil(math.prod(shape) / _BLOCK)
    sizes = [math.prod(shape) // 2, blocks, 4 * math.ceil(blocks / _NESTED_BLOCK), 4]
    four_bits, absmax, nested, offset = packed.view(torch.uint8)[: sum(sizes)].split(sizes)
    state = QuantState(
        absmax=absmax,
        shape=torch.Size(shape),
        dtype=dtype,
        blocksize=_BLOCK,
        quant_type=NF4,
        # Cloned, because float32 has to begin at a multiple of four bytes.
        offset=offset.clone().view(torch.float32)[0],
        state2=QuantState(
            absmax=nested.clone().view(torch.float32),
            blocksize=_NESTED_BLOCK,
            code=_dynamic_code(packed.device),
            dtype=torch.float32,
        ),
    )
    return dequantize_4bit(four_bits.unsqueeze(1), state)


@cache
def _dynamic_code(device: torch.device) -> Tensor:
    from bitsandbytes.functional import create_dynamic_map

    return create_dynamic_map().to(device)
