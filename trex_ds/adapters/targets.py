"""The matrices that an adapter adapts: names that match nothing, and what share of the model they are."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

from peft import PeftConfig, PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from trex_ds.adapters.layer import linear_sizes
from trex_ds.wording import nearest

_ALL = "all-linear"


def target_problems(model: nn.Module, config: PeftConfig) -> list[str]:
    """A line, headed by the field's name, for everything that `config` names and `model` does not have.

    Args:
        model: with or without adapters; its weights are not read.
        config: of any method.
    """
    modules = [name.replace(".base_layer", "") for name, _ in model.named_modules() if name]
    modules = [name.removeprefix("base_model.model.") for name in modules]
    parameters = [name.replace(".base_layer", "") for name, _ in model.named_parameters()]
    adaptable = _adaptable(model)
    linears = _adaptable(model, linears_only=True)
    found = []
    for field, candidates, likely in (
        ("target_modules", adaptable, linears),
        ("feedforward_modules", adaptable, linears),
        ("exclude_modules", adaptable, linears),
        ("modules_to_save", modules, modules),
        ("target_parameters", parameters, parameters),
    ):
        value = getattr(config, field, None)
        if isinstance(value, str):
            if value.lower() != _ALL and not any(re.fullmatch(value, name) for name in candidates):
                found.append(f"{field}: the regular expression {value!r} matches {_none_of(value, likely)}")
            continue
        for name in sorted(value or ()):
            if not any(key == name or key.endswith(f".{name}") for key in candidates):
                found.append(f"{field}: {name!r} is {_none_of(name, likely)}")
    return found + _layer_problems(getattr(config, "layers_to_transform", None), adaptable)


def _layer_problems(layers: list[int] | int | None, adaptable: Collection[str]) -> list[str]:
    if layers is None:
        return []
    known = {int(part[1]) for name in adaptable if (part := re.search(r"\.(\d+)\.", name))}
    missing = sorted({layers} - known if isinstance(layers, int) else set(layers) - known)
    if not missing:
        return []
    there = f"{min(known)} to {max(known)}" if known else "none"
    return [f"layers_to_transform: the model has no layer {', '.join(map(str, missing))}; its layers are {there}"]


def _none_of(name: str, candidates: Iterable[str]) -> str:
    leaves = sorted({candidate.rsplit(".", 1)[-1] for candidate in candidates})
    near = nearest(name.rsplit(".", 1)[-1], leaves, least=0.5)
    folded = [leaf for leaf in leaves if leaf.casefold() == name.casefold()]
    guess = next(iter(folded or near), None)
    return "none of the model's: " + (f"did you mean {guess!r}? It has " if guess else "it has ") + ", ".join(leaves)


def _adaptable(model: nn.Module, linears_only: bool = False) -> list[str]:
    """Names of the modules that methods adapt: linears and whatever has an adapter already; some also others."""
    kinds = (nn.Linear, Conv1D, BaseTunerLayer) if linears_only else (nn.Linear, Conv1D, nn.Embedding, BaseTunerLayer)
    found = []
    for name, module in model.named_modules():
        parts = name.removeprefix("base_model.model.").split(".")
        own = any(part.startswith(("trex_", "lora_")) for part in parts)
        if not own and (isinstance(module, kinds) or (not linears_only and "norm" in parts[-1].lower())):
            found.append(".".join(part for part in parts if part != "base_layer"))
    return found


@dataclass(frozen=True)
class Coverage:
    """Matrices of a base model that an adapter adapts, and those that it leaves out."""

    adapted: dict[str, int]
    """Values of each adapted matrix, by its name in the base model."""
    others: dict[str, int]
    """Values of each matrix that is not, embeddings and output head left out."""

    @property
    def share(self) -> float:
        """The adapted matrices' part of all values, in [0, 1]."""
        adapted = sum(self.adapted.values())
        return adapted / max(1, adapted + sum(self.others.values()))

    @property
    def experts_left_out(self) -> list[str]:
        """Kinds of expert matrices that are not adapted."""
        return [kind for kind in _kinds(self.others) if "expert" in kind and "shared" not in kind]

    def __str__(self) -> str:
        text = f"{', '.join(_leaves(self.adapted))}: {self.share:.1%} of the values of the base's matrices"
        total = sum(self.adapted.values()) + sum(self.others.values())
        large = [f"{kind} {count / total:.1%}" for kind, count in _kinds(self.others).most_common(4)]
        return text + (f"; not adapted: {', '.join(large)}" if large else "")


def coverage(model: PeftModel, base: PreTrainedModel) -> Coverage:
    """List the matrices of `base` that the adapter of `model` adapts.

    Args:
        model: an adapted copy of base.
        base: without adapters, on any device.
    """
    adapted: dict[str, int] = {}
    for name, module in model.named_modules():
        if isinstance(module, BaseTunerLayer):
            parts = name.removeprefix("base_model.model.").split(".")
            path = ".".join(part for part in parts if part != "base_layer")
            own = module.get_base_layer()
            if (parameter := getattr(module, "parameter_name", None)) is not None:
                adapted[f"{path}.{parameter}"] = getattr(own, parameter).numel()
            elif isinstance(own, nn.Linear | Conv1D):
                inputs, outputs = linear_sizes(own)
                adapted[f"{path}.weight"] = inputs * outputs
    ends = {id(module) for module in (base.get_input_embeddings(), base.get_output_embeddings())}
    others: dict[str, int] = {}
    for path, module in base.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            full = f"{path}.{name}"
            if parameter.dim() >= 2 and id(module) not in ends and full not in adapted:
                others[full] = parameter.numel()
    return Coverage(adapted, others)


def _kinds(matrices: dict[str, int]) -> Counter[str]:
    """Values by kind: names without the numbers of layers, and without "weight"."""
    found: Counter[str] = Counter()
    for name, count in matrices.items():
        parts = [part for part in name.removesuffix(".weight").split(".") if not part.isdigit()]
        found[".".join(parts[-2:])] += count
    return found


def _leaves(matrices: Any) -> list[str]:
    return list(dict.fromkeys(name.removesuffix(".weight").rsplit(".", 1)[-1] for name in matrices))
