"""The model that a recipe trains, on the meta device: shapes and types of everything, memory for nothing."""

from __future__ import annotations

from typing import Any

import torch

from trex_ds.adapters.on_meta import adapt_on_meta
from trex_ds.adapters.peft_config import peft_config
from trex_ds.config import ConfigError
from trex_ds.modeling.base import model_location, supported_attention
from trex_ds.modeling.held import BASE, role_of
from trex_ds.modeling.meta import base_on_meta
from trex_ds.modeling.quantized import use_linears_in_4_bits
from trex_ds.planning.attention import PLANNED, register
from trex_ds.training.recipe import Recipe


def meta_model(recipe: Recipe) -> Any:
    """The base model with its adapter as `build_model` makes them, without weights; needs the base's config.json only.

    Raises:
        ConfigError: if no model can be made of the configuration.
    """
    from transformers import AutoConfig

    register()
    try:
        attention = "eager" if supported_attention(recipe.model) == "eager" else PLANNED
        config = AutoConfig.from_pretrained(model_location(recipe.model.name), revision=recipe.model.revision)
        base = base_on_meta(config, attention, recipe.model.torch_dtype)
        if recipe.model.quantization is not None:
            with torch.device("meta"):
                use_linears_in_4_bits(base)
    except (OSError, ValueError) as error:
        raise ConfigError(
            [f"model.name: {recipe.model.name!r} describes no model that could be planned: {error}"]
        ) from None
    base.config.use_cache = False
    model = adapt_on_meta(base, peft_config(recipe.adapter), len(recipe.tasks))
    for name, parameter in model.named_parameters():
        if role_of(name) != BASE:  # PEFT gives adapters their base's type, but for those on the meta device
            parameter.data = parameter.data.to(recipe.model.torch_dtype)
    return model.train()
