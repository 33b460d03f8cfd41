"""The control of every comparison: LoRA with as many trainable parameters as the reference."""

from __future__ import annotations

import math
from typing import Any, get_type_hints

import torch
from pydantic import TypeAdapter

from trex_ds.planning.meta_model import meta_base, meta_model
from trex_ds.training.recipe import Recipe

_TARGETS = ("target_modules", "exclude_modules", "layers_to_transform", "modules_to_save")


def equal_lora(recipe: Recipe, wanted: int) -> Any:
    """The adapter section of the LoRA of least rank that has at least `wanted` parameters.

    It adapts the same linears as `recipe`'s adapter. alpha is twice the rank, as is usual.
    """
    rank = equal_rank(recipe, wanted)
    return lora_section(r=rank, lora_alpha=2 * rank, **_targets(recipe.adapter))


def equal_rank(recipe: Recipe, wanted: int) -> int:
    """The least rank at which LoRA has at least `wanted` parameters on the linears of `recipe`'s adapter."""
    one, two = (_lora_parameters(recipe, r) for r in (1, 2))
    # Other modules that are trained in full have the same parameters at any rank.
    per_rank = two - one
    return max(1, math.ceil((wanted - (one - per_rank)) / per_rank))


def lora_section(**values: Any) -> Any:
    """LoRA as the adapter section of a recipe."""
    adapter = get_type_hints(Recipe, include_extras=True)["adapter"]
    return TypeAdapter(adapter).validate_python({"method": "lora", **values})


def trainable_parameters(recipe: Recipe) -> int:
    """What `recipe` trains, from its model's configuration alone.

    Raises:
        ConfigError: if no model can be made of the configuration.
        ValueError: if the adapter does not fit the model.
    """
    return _trainable(meta_model(recipe))


def _lora_parameters(recipe: Recipe, rank: int) -> int:
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=rank, task_type="CAUSAL_LM", **_targets(recipe.adapter))
    with torch.device("meta"):
        return _trainable(get_peft_model(meta_base(recipe), config))


def _trainable(model: Any) -> int:
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def _targets(adapter: Any) -> dict[str, Any]:
    """What PEFT's methods call alike: which linears are adapted, and what is trained in full."""
    values = {name: getattr(adapter, name, None) for name in _TARGETS}
    return {name: value for name, value in values.items() if value is not None}
