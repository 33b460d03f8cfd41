"""Methods that PEFT has: which of its options a recipe offers, and what is fixed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from peft import LoraConfig, PeftConfig, TaskType


@dataclass(frozen=True)
class PeftMethod:
    """A method of PEFT under the name that recipes use."""

    name: str
    config_cls: type[PeftConfig]
    fields: tuple[str, ...]
    """Fields of the configuration that a recipe can set."""
    constants: dict[str, Any] = field(default_factory=dict)
    """Fields that make the method what it is."""
    defaults: dict[str, Any] = field(default_factory=dict)
    """Where a recipe's default is not PEFT's."""


_CAUSAL = {"task_type": TaskType.CAUSAL_LM}
_WHERE = ("target_modules", "exclude_modules", "layers_to_transform", "modules_to_save")
_ALL_LINEAR = {"target_modules": "all-linear"}
_LORA = ("r", "lora_alpha", "lora_dropout", *_WHERE)

PEFT_METHODS = (
    PeftMethod("lora", LoraConfig, _LORA, _CAUSAL, _ALL_LINEAR),
    PeftMethod("rslora", LoraConfig, _LORA, _CAUSAL | {"use_rslora": True}, _ALL_LINEAR),
    PeftMethod("dora", LoraConfig, _LORA, _CAUSAL | {"use_dora": True}, _ALL_LINEAR),
)
