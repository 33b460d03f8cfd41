"""What the package uses of other libraries' objects, whose own types are too wide or not checked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch
from torch import nn


class Tokenizer(Protocol):
    """A tokenizer of transformers."""

    name_or_path: str
    chat_template: str | None
    pad_token: str | None
    eos_token: str | None
    pad_token_id: int
    eos_token_id: int
    bos_token_id: int | None
    sep_token_id: int | None
    all_special_tokens: list[str]
    special_tokens_map: dict[str, Any]
    added_tokens_decoder: dict[int, Any]

    def __call__(self, text: Any, **settings: Any) -> Mapping[str, Any]:
        """Token ids of texts, as `input_ids`."""

    def apply_chat_template(self, conversation: Any, **settings: Any) -> Any:
        """Render messages, as text or token ids."""

    def decode(self, token_ids: Any, **settings: Any) -> str:
        """Turn token ids into text."""

    def batch_decode(self, sequences: Any, **settings: Any) -> list[str]:
        """Turn several rows of token ids into texts."""

    def get_vocab(self) -> dict[str, int]:
        """Ids of all tokens."""

    def save_pretrained(self, save_directory: str, **settings: Any) -> Any:
        """Write the tokenizer's files."""


class Module(Protocol):
    """A module of torch, or what wraps one."""

    training: bool

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run a forward pass."""

    def eval(self) -> Any:
        """Go to evaluation mode."""

    def train(self, mode: bool = True) -> Any:
        """Go to training mode, or to evaluation mode."""

    def modules(self) -> Iterator[nn.Module]:
        """All modules, itself first."""

    def named_modules(self) -> Iterator[tuple[str, nn.Module]]:
        """All modules with their names."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """All parameters."""

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """All parameters with their names."""

    def named_buffers(self) -> Iterator[tuple[str, torch.Tensor]]:
        """All buffers with their names."""


class CausalLM(Module, Protocol):
    """A causal language model of transformers, or PEFT's model around one."""

    config: Any
    generation_config: Any

    @property
    def device(self) -> torch.device:
        """Device of its parameters."""

    @property
    def dtype(self) -> torch.dtype:
        """Type of its parameters."""

    def generate(self, **arguments: Any) -> torch.Tensor:
        """Token ids of prompts and answers."""

    def enable_input_require_grads(self) -> None:
        """Let the embeddings' outputs require gradients, which checkpointed blocks need to find."""

    def gradient_checkpointing_enable(self) -> None:
        """Recompute activations in the backward pass."""

    def get_input_embeddings(self) -> Any:
        """The embedding of tokens."""

    def get_output_embeddings(self) -> Any:
        """The output head."""


class AdaptedLM(CausalLM, Protocol):
    """PEFT's model around a causal language model."""

    active_adapter: str
    peft_config: dict[str, Any]
    base_model: Any

    def get_base_model(self) -> Any:
        """The model without PEFT's wrapping, its adapted linears in place."""

    def disable_adapter(self) -> AbstractContextManager[None]:
        """Answer as the base model in the block."""
