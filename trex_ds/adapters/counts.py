"""Parameters of any adapter on any model, by role: counted on the meta device, which allocates nothing."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from peft import LoraConfig, PeftConfig

from trex_ds.adapters.architectures import ARCHITECTURES
from trex_ds.adapters.on_meta import adapted_on_meta
from trex_ds.config import ConfigError
from trex_ds.methods.base import TARGETS
from trex_ds.modeling.base import model_location

A, B, ROUTER, GATES, MAPPER, OTHER, FROZEN = (
    *("experts A", "experts B", "router", "gates", "mapper", "other"),
    "frozen",
)
ROLES = (A, B, ROUTER, GATES, MAPPER, OTHER, FROZEN)
"""What an adapter's parameters are for. `frozen` ones are the adapter's own but not trained."""

# The first that is found in a parameter's own name, which begins where that of the base model's module ends.
_BY_NAME = {"mapper": MAPPER, r"\b(omega|gamma)\b": GATES, "router": ROUTER, r"_A\b": A, r"_B\b": B}


def model_config(name: str, revision: str | None = None) -> Any:
    """A transformers configuration: one of ARCHITECTURES by name, or of a folder, the hub or the embedded model.

    Raises:
        ConfigError: if there is none.
    """
    from transformers import AutoConfig

    if name in ARCHITECTURES:
        return AutoConfig.for_model(**ARCHITECTURES[name])
    try:
        return AutoConfig.from_pretrained(model_location(name), revision=revision)
    except (OSError, ValueError) as error:
        raise ConfigError([f"{name!r} describes no model whose parameters could be counted: {error}"]) from None


def count(config: Any, adapter: PeftConfig, tasks: int | None = None) -> dict[str, int]:
    """The adapter's parameters on a model of this transformers configuration, by role; trained ones but for `frozen`.

    Args:
        config: of the base model; no weights are needed.
        adapter: any PEFT configuration; it is left as it is.
        tasks: how many are learned apart; only Poly and MHR read it, and need it.

    Raises:
        ValueError: if the adapter does not fit the model, or learns tasks apart and `tasks` is None.
    """
    model, base = adapted_on_meta(config, adapter, tasks)
    modules = {name for name, _ in base.named_modules()}
    owned = {name for name, _ in base.named_parameters()}
    counts = dict.fromkeys(ROLES, 0)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            counts[_role(name, modules)] += parameter.numel()
        elif re.sub(r"^base_model\.model\.|\.(base_layer|original_module)(?=\.)", "", name) not in owned:
            counts[FROZEN] += parameter.numel()
    return counts


def trained(counts: Mapping[str, int]) -> int:
    """How many of the counted parameters are trained."""
    return sum(number for role, number in counts.items() if role != FROZEN)


def equal_parameter_rank(config: Any, adapter: PeftConfig, tasks: int | None = None) -> int:
    """The least LoRA rank at which LoRA has at least as many trained parameters as `adapter`.

    Its linears are those that `adapter` names, or all if it names none. The arguments are those of `count`.
    """
    targets = {name: getattr(adapter, name) for name in TARGETS if getattr(adapter, name, None) is not None}
    targets.setdefault("target_modules", "all-linear")
    one, two = (trained(count(config, LoraConfig(r=r, task_type="CAUSAL_LM", **targets))) for r in (1, 2))
    # Modules that are trained in full have the same parameters at any LoRA rank.
    per_rank = two - one
    return max(1, math.ceil((trained(count(config, adapter, tasks)) - one) / per_rank) + 1)


def _role(name: str, base_modules: set[str]) -> str:
    parts = name.removeprefix("base_model.model.").split(".")
    start = max(end for end in range(len(parts)) if ".".join(parts[:end]) in base_modules)
    own = " ".join(parts[start:])
    return next((role for pattern, role in _BY_NAME.items() if re.search(pattern, own)), OTHER)
