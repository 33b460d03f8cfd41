"""A recipe and what its report is to hold."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import Field, NonNegativeInt, PositiveFloat, TypeAdapter

from trex_ds.adapter_folder import CONFIG_FILE, AdapterFolder
from trex_ds.config import section
from trex_ds.methods.base import NAME_MODULES, TARGETS
from trex_ds.methods.config import AdapterConfig
from trex_ds.methods.lora import EQUAL_LORA
from trex_ds.methods.trex import TRex
from trex_ds.training.recipe import Recipe

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


@section
class Timing:
    """How step times are measured."""

    warm_up_steps: NonNegativeInt = 2
    """Steps of each method that are not counted."""
    pairs: Annotated[int, Field(ge=6)] = 20
    """Pairs of steps of each comparison, at most."""
    minutes: PositiveFloat = 0.5
    """Minutes after which a comparison begins no further pair, once it has six."""


@section
class ReportConfig:
    """What is counted, timed and looked at."""

    methods: dict[str, AdapterConfig] = Field(default_factory=dict)
    """More methods to count: adapter sections by a name for each."""
    models: list[str] = Field(default_factory=list)
    """More models to count for: folders that hold a config.json, or hub ids."""
    timed: list[str] = Field(default_factory=list)
    """Names of counted methods to time against the same LoRAs as the recipe's adapter is."""
    timing: Timing = Field(default_factory=Timing)
    """How step times are measured."""
    adapter: str | None = None
    """Folder of a trained adapter whose routing is looked at; null: `adapter` in output_dir, if it is there."""
    accuracy_margin: Annotated[float, Field(ge=0)] = 0.0
    """Points of mean accuracy by which the method must be better than the best LoRA-based one."""

    def problems(self) -> list[str]:
        """Names that cannot be used."""
        return [
            f"methods: {name!r} is not a valid method name; use letters, digits, _, . and -"
            for name in self.methods
            if not _NAME.fullmatch(name)
        ]

    def problems_here(self) -> list[str]:
        """A folder without an adapter."""
        if self.adapter is not None and AdapterFolder(Path(self.adapter)).config is None:
            return [f"adapter: no {CONFIG_FILE} in {self.adapter!r}; name a folder that training has saved"]
        return []


@section
class ReportRecipe(Recipe):
    """A training recipe, and the report on it."""

    report: ReportConfig = Field(default_factory=ReportConfig)
    """What is counted, timed and looked at."""
    comparison: str | None = None
    """A comparison.json of trex-ds compare, for the claims on accuracy."""
    check: bool = False
    """Exit with code 1 if a claim does not hold."""

    checked_here: ClassVar[tuple[str, ...]] = (*Recipe.checked_here, "report")

    def problems(self) -> list[str]:
        """The recipe's own problems, and names of methods that are taken or not known."""
        found = super().problems()
        if not isinstance(self.adapter, TRex):
            found.append(
                f"adapter: method is {self.adapter.method}, but a report is about T-REX's claims; give a recipe of "
                "trex, and other methods in report.methods"
            )
        if self.adapter.picks_unnamed:
            found.append(
                "adapter.layers_to_transform: the LoRAs that a report compares with take it with named modules only; "
                f"{NAME_MODULES}"
            )
        if not isinstance(self.adapter, TRex) or self.adapter.picks_unnamed or self.adapter.problems():
            return found
        known = self.counted_methods()
        if taken := [name for name in self.report.methods if name in (*self.built_in_methods(), EQUAL_LORA)]:
            found.append(f"report.methods: {taken[0]} is counted anyway; choose another name")
        found += [
            f"report.timed.{i}: {name!r} is not one of the methods: {', '.join(known)}"
            for i, name in enumerate(self.report.timed)
            if name not in known
        ]
        shared = set(Recipe.problems(self))
        for name in dict.fromkeys(name for name in self.report.timed if name in known):
            found += [f"report.timed: {name}: {line}" for line in self._timing_problems(known[name], shared)]
        return found

    def problems_here(self) -> list[str]:
        """Inputs that this machine lacks; files of an earlier run in output_dir are allowed."""
        found = self.input_problems()
        if self.comparison is not None and (problem := _comparison_problem(Path(self.comparison))):
            found.append(f"comparison: {problem}")
        return found

    def _timing_problems(self, adapter: Any, shared: set[str]) -> list[str]:
        """Reasons why a method cannot be timed on the data of the recipe's method, beyond the recipe's own problems."""
        found = [line for line in Recipe.problems(self.job(adapter=adapter)) if line not in shared]
        if adapter.needs_tasks:
            found.append(f"adapter.method {adapter.method} learns tasks apart, whose batches a report does not make")
        clusters = self.adapter.num_clusters
        if adapter.needs_intuition and not (self.adapter.needs_intuition and adapter.num_clusters == clusters):
            found.append(
                f"has {adapter.num_clusters} clusters, but batches have the intuition of the recipe's adapter, which "
                + (f"has {clusters}" if self.adapter.needs_intuition else "takes none")
            )
        return found

    def built_in_methods(self) -> dict[str, Any]:
        """The recipe's adapter and what it is compared with, on the same linears: adapter sections by name."""
        targets = self._targets()
        wanted: dict[str, dict[str, Any]] = {
            "molora_8x4": {"method": "molora", "num_experts": 8, "r": 4},
            "sira_8x4": {"method": "sira", "num_experts": 8, "r": 4},
            "hydralora_3x8": {"method": "hydralora", "num_heads": 3, "r": 8},
            "hydralora_3x16": {"method": "hydralora", "num_heads": 3, "r": 16},
            "smora_r32": {"method": "smora", "r": 32},
            "flylora_r32": {"method": "flylora", "r": 32},
            "mor1e_32": {"method": "mor1e", "num_experts": 32},
            "trex_8x8": {"method": "trex", "num_in_experts": 8, "num_out_experts": 8, "num_clusters": 64},
        }
        sections = {name: adapter_section({**values, **targets}) for name, values in wanted.items()}
        loras = {"lora_r16": self.lora(16), self.lora_of_pairs: self.lora(self._num_pairs)}
        return {"trex": self.adapter, **loras, **sections}

    @property
    def lora_of_pairs(self) -> str:
        """The name of the LoRA that the paper compares with, whose LoRA rank is the adapter's number of pairs."""
        return f"lora_r{self._num_pairs}"

    @property
    def _num_pairs(self) -> int:
        assert isinstance(self.adapter, TRex), "problems() says so"
        return self.adapter.num_pairs

    def lora(self, r: int) -> Any:
        """The adapter section of a LoRA on the linears that the recipe's adapter adapts."""
        return adapter_section({"method": "lora", "r": r, **self._targets()})

    def _targets(self) -> dict[str, Any]:
        return {name: getattr(self.adapter, name) for name in TARGETS}

    def counted_methods(self) -> dict[str, Any]:
        """All methods whose parameters are counted: adapter sections by name."""
        return {**self.built_in_methods(), **self.report.methods}


def _comparison_problem(file: Path) -> str | None:
    if not file.is_file():
        return f"no file {str(file)!r} (relative to {Path.cwd()})"
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:  # no JSON, or no text at all
        content = None
    if not isinstance(content, dict) or not {"recipe", "methods", "reference", "pairs"} <= content.keys():
        return f"{str(file)!r} is not a comparison.json that trex-ds compare wrote"
    return None


def adapter_section(values: dict[str, Any]) -> Any:
    """An adapter section from plain values."""
    return TypeAdapter(AdapterConfig).validate_python(values)
