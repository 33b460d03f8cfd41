"""The model that a recipe trains, on the meta device: shapes and types of everything, memory for nothing."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from trex_ds.config import ConfigError
from trex_ds.modeling import model_location
from trex_ds.planning.attention import PLANNED, register
from trex_ds.training.recipe import Recipe

# bitsandbytes' nf4 with double quantisation: weights a block, blocks a second-level block, entries of the two codes.
_BLOCK, _SECOND_BLOCK, _CODES = 64, 256, 16 + 256


def meta_model(recipe: Recipe) -> Any:
    """The base model with its adapter as `build_model` makes them, without weights; needs the base's config.json only.

    Raises:
        ConfigError: if no model can be made of the configuration.
    """
    from peft import get_peft_model
    from transformers import AutoConfig, AutoModelForCausalLM

    register()
    eager = recipe.model.attention == "eager"
    try:
        config = AutoConfig.from_pretrained(model_location(recipe.model.name), revision=recipe.model.revision)
        with torch.device("meta"):
            base = AutoModelForCausalLM.from_config(
                config, dtype=recipe.model.torch_dtype, attn_implementation="eager" if eager else PLANNED
            )
    except (OSError, ValueError) as error:
        raise ConfigError([f"model.name: no causal language model can be made of {recipe.model.name!r}: {error}"]) from None
    base.requires_grad_(False)
    base.config.use_cache = False
    if getattr(recipe.model, "quantization", None) is not None:
        _quantise(base)
    adapter = recipe.adapter.build()
    # Standardising the scores takes centroids, which the plan has none of, and changes no shape.
    if adapter.intuition_transform == "centered":
        adapter.intuition_transform = "raw"
    with torch.device("meta"):
        model = get_peft_model(base, adapter, autocast_adapter_dtype=False)
    for parameter in model.parameters():
        if parameter.requires_grad:  # PEFT leaves what is on the meta device in float32
            parameter.data = parameter.data.to(recipe.model.torch_dtype)
    return model.train()


def role(name: str) -> str:
    """What a parameter is for, by its name in the adapted model."""
    for part, found in _ROLES.items():
        if f".{part}." in name:
            return found
    return "other trained" if ".modules_to_save." in name else "base"


_ROLES = {
    "trex_A": "experts A",
    "trex_B": "experts B",
    "trex_router": "router",
    "trex_omega": "gates",
    "trex_gamma": "gates",
    "trex_mapper": "mapper",
}


def logical_parameters(model: nn.Module) -> dict[str, int]:
    """Parameters by role, as many as they are before any packing."""
    packed = {id(m.weight): m.in_features * m.out_features for m in model.modules() if isinstance(m, PackedLinear)}
    counts: dict[str, int] = {}
    for name, parameter in model.named_parameters():
        counts[role(name)] = counts.get(role(name), 0) + packed.get(id(parameter), parameter.numel())
    return counts


def quant_state_bytes(model: nn.Module) -> int:
    """Bytes of the 4-bit layers' scales and codes; every rank keeps all of them."""
    return sum(m.quant_state_bytes for m in model.modules() if isinstance(m, PackedLinear))


class PackedLinear(nn.Linear):
    """A linear whose weight is two to the byte, as bitsandbytes keeps nf4: unpacked for each product, and again for its
    gradient.

    The weight's storage type is the model's, so that ZeRO-3 can shard it.
    """

    def __init__(self, linear: nn.Linear):
        nn.Module.__init__(self)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        count = self.in_features * self.out_features
        packed = math.ceil(count / 2 / linear.weight.itemsize)
        self.weight = nn.Parameter(linear.weight.new_empty(packed, 1), requires_grad=False)
        self.bias = linear.bias
        blocks = math.ceil(count / _BLOCK)
        self.quant_state_bytes = blocks + 4 * (math.ceil(blocks / _SECOND_BLOCK) + 1 + _CODES)

    def forward(self, input: Tensor) -> Tensor:
        """(..., in_features) -> (..., out_features)."""
        y = _PackedProduct.apply(input, self)
        return y if self.bias is None else y + self.bias


class _PackedProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, linear: PackedLinear) -> Tensor:
        ctx.linear = linear
        return x @ x.new_empty(linear.in_features, linear.out_features)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, None]:
        return dy @ dy.new_empty(ctx.linear.out_features, ctx.linear.in_features), None


def _quantise(base: nn.Module) -> None:
    head = base.get_output_embeddings()  # type: ignore[operator]
    linears = {name: m for name, m in base.named_modules() if type(m) is nn.Linear and m is not head}
    for name, linear in linears.items():
        base.set_submodule(name, PackedLinear(linear))
