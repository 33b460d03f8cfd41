"""Base models and tokenizers."""

from trex_ds.modeling.base import ModelConfig, load_base_model, load_tokenizer, model_location

__all__ = ["ModelConfig", "load_base_model", "load_tokenizer", "model_location"]
