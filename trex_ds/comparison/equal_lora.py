"""The control of every comparison: LoRA with as many trainable parameters as the reference."""

from __future__ import annotations

import math
from typing import Any, get_type_hints

import torch
from pydantic import TypeAdapter

from trex_ds.planning.meta_model import meta_base, meta_model
from trex_ds.training.recipe import Recipe

_TARGETS = ("target_modules", "exclude_modules", "layers_to_transform", "modules_to_save")


def equal_lora(recipe: Recipe) -> Any:
    """The adapter section of the LoRA of least rank that has at least as many parameters as `recipe`'s adapter.

    It adapts the same linears. alpha is twice the rank, as is usual.

    Raises:
        ConfigError: if no model can be made of recipe.model's configuration.
    """
    rank = equal_rank(recipe)
    targets = {name: getattr(recipe.adapter, name) for name in _TARGETS if hasattr(recipe.adapter, name)}
    return lora_section(r=rank, lora_alpha=2 * rank, **targets)


def equal_rank(recipe: Recipe) -> int:
    """The least rank at which LoRA has at least as many parameters as `recipe`'s adapter on the same linears."""
    return math.ceil(trainable_parameters(meta_model(recipe)) / _lora_parameters_per_rank(recipe))


def lora_section(**values: Any) -> Any:
    """LoRA as the adapter section of a recipe."""
    return TypeAdapter(get_type_hints(Recipe, include_extras=True)["adapter"]).validate_python(
        {"method": "lora", **values}
    )


def trainable_parameters(model: Any) -> int:
    """Of a model that is whole or on the meta device."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def _lora_parameters_per_rank(recipe: Recipe) -> int:
    """Inputs and outputs of all linears that the adapter is put on."""
    from peft import LoraConfig, get_peft_model

    adapter = recipe.adapter
    names = [name for name in _TARGETS[:3] if hasattr(adapter, name)]
    config = LoraConfig(r=1, task_type="CAUSAL_LM", **{name: getattr(adapter, name) for name in names})
    with torch.device("meta"):
        return trainable_parameters(get_peft_model(meta_base(recipe), config))
