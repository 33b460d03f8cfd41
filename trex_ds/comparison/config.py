"""A comparison: a recipe with several methods and seeds in place of one."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Any

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from trex_ds.config import section
from trex_ds.methods.base import NAME_MODULES
from trex_ds.methods.config import AdapterConfig, default_adapter
from trex_ds.methods.lora import EQUAL_LORA
from trex_ds.training.recipe import Recipe

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


@section
class TuningConfig:
    """The choice of each method's learning rate, by the loss on what data.left_out keeps out of all training."""

    learning_rates: Annotated[list[PositiveFloat], Field(min_length=2)]
    """Candidates, the same for each method; each is tried in a short training with the first seed."""
    max_steps: PositiveInt
    """Optimizer steps of each of these trainings; their schedule is the recipe's over as many steps."""

    def problems(self) -> list[str]:
        """A candidate that is given twice."""
        if len(set(self.learning_rates)) < len(self.learning_rates):
            return ["learning_rates: a value is given twice; remove one"]
        return []


@section
class CompareRecipe(Recipe):
    """Methods times seeds under one recipe."""

    adapter: AdapterConfig = Field(default_factory=default_adapter)
    """Not used: each of `methods` is such a section."""
    methods: dict[str, AdapterConfig] = Field(default_factory=dict)
    """The adapter section of each method, by a name for it."""
    reference: str | None = None
    """The method that the added LoRA has as many parameters as; null: the first."""
    baselines: list[str] = Field(default_factory=list)
    """Methods that the others are compared with; the LoRA with equally many parameters always is one. The reference is
    compared with them even if it is one itself; other baselines are not compared with each other."""
    seeds: Annotated[list[NonNegativeInt], Field(min_length=1)] = Field(default_factory=lambda: [0, 1, 2])
    """Each method is trained once with each of them."""
    tuning: TuningConfig | None = None
    """How each method's learning rate is chosen; null: all have that of the recipe."""
    different_matrices: bool = False
    """Compare methods though they adapt different matrices of the base model, as LoRA and T-REX do with experts."""
    retry_failed: bool = False
    """Try runs again that have failed before."""

    def problems(self) -> list[str]:
        """Problems of methods, seeds and tuning, and of the recipe of each method's runs."""
        found = self._unused()
        if not self.methods:
            return [
                *found,
                "methods: required, but there are none; give each method's adapter section by a name for it",
            ]
        for name in self.methods:
            if not _NAME.fullmatch(name):
                found.append(f"methods: {name!r} is not a valid folder name; use letters, digits, _ and -")
            elif name == EQUAL_LORA:
                found.append(f"methods: {name} is the name of the LoRA that is always added; choose another")
        known = ", ".join(self.methods)
        if self.reference is not None and self.reference not in self.methods:
            found.append(f"reference: {self.reference!r} is not one of the methods: {known}")
        found += [
            f"baselines.{i}: {name!r} is not one of the methods: {known}"
            for i, name in enumerate(self.baselines)
            if name not in (*self.methods, EQUAL_LORA)
        ]
        reference = self.methods.get(self.reference_method)
        if reference is not None and reference.picks_unnamed:
            found.append(
                f"methods.{self.reference_method}.layers_to_transform: the LoRA of equal size that is always added "
                f"takes it with named modules only; {NAME_MODULES}"
            )
        if len(set(self.seeds)) < len(self.seeds):
            found.append("seeds: a seed is given twice; remove one")
        if all(task.evaluation_examples == 0 for task in self.tasks):
            found.append(
                "tasks: none has evaluation examples, by which methods are compared; raise evaluation_examples of some"
            )
        if self.tuning is not None:
            if not self.data.left_out:
                found.append(
                    "data.left_out: tuning measures the loss on training examples that no run trains on; "
                    "set it to 32, say"
                )
            if self.tuning.max_steps <= self.training.warmup_steps:
                found.append(
                    f"tuning.max_steps: {self.tuning.max_steps} steps are over before training.warmup_steps, "
                    f"{self.training.warmup_steps}; raise it"
                )
        return found + self._of_all_methods(Recipe.problems)

    def problems_here(self) -> list[str]:
        """Inputs that this machine lacks; an earlier comparison in output_dir is continued."""
        return self.input_problems()

    def centroids_problems(self) -> list[str]:
        """Centroids that cannot be read, or of another number than one of the methods takes."""
        return self._of_all_methods(Recipe.centroids_problems)

    @property
    def reference_method(self) -> str:
        """The name of the reference."""
        return self.reference or next(iter(self.methods))

    def child(self, adapter: Any, seed: int, **changes: Any) -> Recipe:
        """The recipe of one run; `changes` replace sections or values of it."""
        return self.job(adapter=adapter, seed=seed, **changes)

    def _unused(self) -> list[str]:
        """Fields of a recipe that mean nothing in a comparison."""
        found = []
        if self.adapter != default_adapter():
            found.append("adapter: has no effect, each of methods has its own; remove it")
        if self.seed != 0:
            found.append("seed: has no effect in a comparison; use seeds")
        if self.training.resume:
            found.append("training.resume: has no effect, a comparison goes on by itself; remove it")
        if self.training.save_every is not None:
            found.append("training.save_every: has no effect, an interrupted run begins anew; remove it")
        return found

    def _of_all_methods(self, check: Callable[[Recipe], list[str]]) -> list[str]:
        """What `check` says of the recipes of the methods' runs, once where it says the same of all."""
        lines = {name: check(self.child(adapter, 0)) for name, adapter in self.methods.items()}
        shared = [line for line in next(iter(lines.values()), []) if all(line in own for own in lines.values())]
        return shared + [f"methods.{name}: {line}" for name, own in lines.items() for line in own if line not in shared]
