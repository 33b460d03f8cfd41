"""Base models and tokenizers."""

from trex_ds.modeling.base import (
    ModelConfig,
    fetch_base_model,
    load_base_model,
    load_tokenizer,
    model_location,
    supported_attention,
)
from trex_ds.modeling.quantized import Linear4bit
from trex_ds.modeling.zero3 import forget_models, whole_weights

__all__ = [
    "Linear4bit",
    "ModelConfig",
    "fetch_base_model",
    "forget_models",
    "load_base_model",
    "load_tokenizer",
    "model_location",
    "supported_attention",
    "whole_weights",
]
