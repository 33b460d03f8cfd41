"""The control of every comparison: LoRA with as many trainable parameters as the reference."""

from __future__ import annotations

from typing import Any

from trex_ds.adapters.counts import count, equal_parameter_rank, model_config, trained
from trex_ds.adapters.peft_config import peft_config
from trex_ds.methods.base import TARGETS
from trex_ds.methods.lora import Lora
from trex_ds.training.recipe import Recipe


def equal_lora(recipe: Recipe) -> Any:
    """The adapter section of the LoRA of least r that has at least as many parameters as `recipe`'s adapter.

    It adapts the same linears. alpha is twice the rank, as is usual.

    Raises:
        ConfigError: if no model can be made of recipe.model's configuration.
    """
    config = model_config(recipe.model.name, recipe.model.revision)
    rank = equal_parameter_rank(config, peft_config(recipe.adapter), len(recipe.tasks))
    values = {name: getattr(recipe.adapter, name, None) for name in TARGETS}
    targets = {name: value for name, value in values.items() if value is not None}
    return Lora(r=rank, lora_alpha=2 * rank, **targets)


def trainable_parameters(recipe: Recipe) -> int:
    """What `recipe` trains, from its model's configuration alone; every source counts as one task.

    Raises:
        ConfigError: if no model can be made of the configuration.
        ValueError: if the adapter does not fit the model.
    """
    config = model_config(recipe.model.name, recipe.model.revision)
    return trained(count(config, peft_config(recipe.adapter), len(recipe.tasks)))
