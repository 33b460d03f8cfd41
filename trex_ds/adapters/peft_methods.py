"""Methods that PEFT has: which of its options a recipe offers, what is fixed, and what they cannot be used with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from peft import (
    AdaLoraConfig,
    BeftConfig,
    IA3Config,
    LNTuningConfig,
    LoHaConfig,
    LoKrConfig,
    LoraConfig,
    PeftConfig,
    PolyConfig,
    PromptTuningConfig,
    RandLoraConfig,
    ShiraConfig,
    TaskType,
    VeraConfig,
)

from trex_ds.adapters.limits import BFLOAT16, CHECKPOINTING, FOUR_BITS, HELD_OUT, PACKING, RESUMING, ZERO, ZERO3


@dataclass(frozen=True)
class PeftMethod:
    """A method of PEFT under the name that recipes use."""

    name: str
    config_cls: type[PeftConfig]
    fields: tuple[str, ...]
    """Fields of the configuration that a recipe can set."""
    constants: dict[str, Any] = field(default_factory=dict)
    """Fields that make the method what it is, or that the job sets when it knows them."""
    defaults: dict[str, Any] = field(default_factory=dict)
    """Defaults of a recipe that are not PEFT's."""
    refuses: Mapping[str, str] = field(default_factory=dict)
    """What it cannot be used with (a name of limits.py), and why."""


HELP = {
    "r": "rank, or the method's like of it",
    "lora_alpha": "scale: updates are multiplied by lora_alpha / r (by lora_alpha / sqrt(r) in rslora)",
    "alpha": "scale: updates are multiplied by alpha / r",
    "randlora_alpha": "scale: updates are multiplied by randlora_alpha / r",
    "lora_dropout": "dropout on the adapter's input",
    "vera_dropout": "dropout on the adapter's input",
    "randlora_dropout": "dropout on the adapter's input",
    "rank_dropout": "probability with which each rank is dropped in training",
    "init_r": "rank of every linear at the start",
    "target_r": "mean rank of the linears at the end",
    "tinit": "steps of training before ranks are taken away",
    "tfinal": "steps of training at the end, after the ranks are decided",
    "d_initial": "start of the trained scales of the projections",
    "random_seed": "seed of the choice of weights that are trained",
    "decompose_both": "make both Kronecker factors products of rank r, not only the larger",
    "decompose_factor": "size of the smaller Kronecker factor; -1: as near to the square root as divides",
    "num_virtual_tokens": "trained embeddings in front of every prompt",
    "n_skills": "skills, each a LoRA, that the tasks share",
    "n_splits": "parts of each skill that a task chooses apart from the others; must divide all features",
    "feedforward_modules": "those of target_modules whose input is scaled, not their output; null: PEFT's choice",
    "target_modules": "names or regex of the modules to adapt; null: PEFT's choice for the kind of model",
    "exclude_modules": "names or regex of modules to leave alone",
    "layers_to_transform": "indices of the layers to adapt; null: all",
    "modules_to_save": "other modules to train in full and to save with the adapter",
}
"""What the fields are, in the words of the other methods' sections."""

_CAUSAL = {"task_type": TaskType.CAUSAL_LM}
_ALL_LINEAR = {"target_modules": "all-linear"}
_TARGETS = ("target_modules", "modules_to_save")
_LAYERS = ("target_modules", "layers_to_transform", "modules_to_save")
_WHERE = ("target_modules", "exclude_modules", "layers_to_transform", "modules_to_save")
_LORA = ("r", "lora_alpha", "lora_dropout", *_WHERE)
_MODULES = ("target_modules", "exclude_modules", "modules_to_save")
_POLY = ("r", "n_skills", *_MODULES)

_READS_WEIGHT = "PEFT's layer reads the base weight as a matrix, and in 4 bits it is packed"
_ADALORA_STATE = "AdaLoRA's ranks and their scores are not part of a checkpoint"
_POLY_LIMITS = {
    PACKING: "PEFT's Poly mixes skills by the task of a row, and packed rows hold examples of several",
    CHECKPOINTING: "PEFT's Poly has forgotten the tasks of a pass when its layers run again",
}

PEFT_METHODS = (
    PeftMethod("lora", LoraConfig, _LORA, _CAUSAL, _ALL_LINEAR),
    PeftMethod("rslora", LoraConfig, _LORA, _CAUSAL | {"use_rslora": True}, _ALL_LINEAR),
    PeftMethod(
        "dora", LoraConfig, _LORA, _CAUSAL | {"use_dora": True}, _ALL_LINEAR, refuses={FOUR_BITS: _READS_WEIGHT}
    ),
    PeftMethod(
        "adalora",
        AdaLoraConfig,
        ("init_r", "target_r", "lora_alpha", "lora_dropout", "tinit", "tfinal", *_WHERE),
        _CAUSAL | {"total_step": 2**31},
        _ALL_LINEAR,
        refuses={
            ZERO: "AdaLoRA sets weights to zero between steps, and ZeRO's own copies would bring them back",
            BFLOAT16: "AdaLoRA sets weights to zero between steps, and float32 copies would bring them back",
            HELD_OUT: "an adapter whose ranks have changed since cannot be put back into the model",
            RESUMING: _ADALORA_STATE,
        },
    ),
    PeftMethod("vera", VeraConfig, ("r", "d_initial", "vera_dropout", *_LAYERS), _CAUSAL, _ALL_LINEAR),
    PeftMethod("randlora", RandLoraConfig, ("r", "randlora_alpha", "randlora_dropout", *_LAYERS), _CAUSAL, _ALL_LINEAR),
    PeftMethod(
        "shira",
        ShiraConfig,
        ("r", "random_seed", *_TARGETS),
        _CAUSAL,
        _ALL_LINEAR | {"random_seed": 0},
        refuses={FOUR_BITS: _READS_WEIGHT},
    ),
    PeftMethod(
        "loha",
        LoHaConfig,
        ("r", "alpha", "rank_dropout", *_WHERE),
        _CAUSAL,
        _ALL_LINEAR,
        refuses={
            FOUR_BITS: _READS_WEIGHT,
            ZERO3: "PEFT's LoHa takes its sizes from the weight, and a sharded weight has none",
        },
    ),
    PeftMethod(
        "lokr",
        LoKrConfig,
        ("r", "alpha", "rank_dropout", "decompose_both", "decompose_factor", *_WHERE),
        _CAUSAL,
        _ALL_LINEAR,
        refuses={FOUR_BITS: _READS_WEIGHT},
    ),
    PeftMethod("ia3", IA3Config, ("feedforward_modules", *_MODULES), _CAUSAL),
    PeftMethod(
        "prompt_tuning",
        PromptTuningConfig,
        ("num_virtual_tokens",),
        _CAUSAL,
        {"num_virtual_tokens": 20},
        refuses={
            PACKING: "the trained embeddings stand in front of a row, and only its first example has them before it"
        },
    ),
    PeftMethod("poly", PolyConfig, _POLY, _CAUSAL, _ALL_LINEAR, refuses=_POLY_LIMITS),
    PeftMethod("mhr", PolyConfig, ("n_splits", *_POLY), _CAUSAL, _ALL_LINEAR | {"n_splits": 4}, refuses=_POLY_LIMITS),
    PeftMethod("beft", BeftConfig, _TARGETS, _CAUSAL, _ALL_LINEAR),
    PeftMethod(
        "ln_tuning",
        LNTuningConfig,
        _MODULES,
        _CAUSAL,
        refuses={ZERO3: "PEFT trains copies of the norms, and sharded ones cannot be copied"},
    ),
)
