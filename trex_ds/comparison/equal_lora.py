"""The control of every comparison: LoRA with as many trainable parameters as the reference."""

from __future__ import annotations

from typing import Any, get_type_hints

from pydantic import TypeAdapter

from trex_ds.reporting.counts import equal_parameter_rank, model_config
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
    config = model_config(recipe.model.name, recipe.model.revision)
    return equal_parameter_rank(config, recipe.adapter.build())


def lora_section(**values: Any) -> Any:
    """LoRA as the adapter section of a recipe."""
    return TypeAdapter(get_type_hints(Recipe, include_extras=True)["adapter"]).validate_python(
        {"method": "lora", **values}
    )
