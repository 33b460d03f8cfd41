"""A base model on the meta device: every shape and name, and memory for nothing."""

from __future__ import annotations

from typing import Any

import torch


def base_on_meta(config: Any, attention: str = "eager", dtype: torch.dtype | None = None) -> Any:
    """The frozen causal language model that transformers' `config` describes, without weights.

    Args:
        config: it is not changed.
        attention: transformers' name of the attention.
        dtype: of the weights; None: torch's default.

    Raises:
        ValueError: if no such model can be made, or it has no such attention.
    """
    from transformers import AutoModelForCausalLM
    from transformers.modeling_utils import set_zero3_state

    # Without set_zero3_state a TrainingArguments that is alive would have DeepSpeed shard the empty parameters.
    with torch.device("meta"), set_zero3_state():
        model = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation=attention)
    return model.requires_grad_(False)
