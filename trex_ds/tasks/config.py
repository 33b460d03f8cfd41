"""Tasks that a recipe trains and evaluates on."""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, Any

from pydantic import Field, NonNegativeInt

from trex_ds.config import section
from trex_ds.tasks.registry import kinds


@section
class TaskConfig:
    """One source of tasks."""

    source: str
    """gym:NAME, a procedural task of reasoning-gym; file:PATH, your own examples (.jsonl, .parquet or a folder of
    them); hub:ID, a dataset of the hub; or lm_eval:NAME, any task or group of lm-evaluation-harness."""
    weight: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    """How often its examples are seen, multiplied with data.mixing's share: 2.0 is twice, 0.5 every other one."""
    train_examples: NonNegativeInt | None = None
    """Limit of training examples for each task; null: 1000 of a gym task, else all; 0: only evaluate, on
    everything that the source has if there are no other evaluation examples."""
    evaluation_examples: NonNegativeInt | None = None
    """Limit of evaluation examples for each task; null: 100 of a gym task, else all; 0: only train."""
    evaluation_source: str | None = None
    """file: only. Source of the evaluation examples (hub: has the option evaluation_split); null: a part of the source
    itself."""
    evaluation_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """file: and hub: only. Fraction of the prompts that is held out for evaluation."""
    seed: int = 0
    """Seed of what a gym task makes, of how a source is split and of which examples a cap leaves."""
    options: dict[str, Any] = field(default_factory=dict)
    """gym: settings of the task, such as {max_words: 10}. hub: config, split and evaluation_split, each a name.
    lm_eval: {training_split: NAME} for a task that names none."""
    columns: dict[str, str] = field(default_factory=dict)
    """file: and hub: only. Columns by field, such as {prompt: question, answer: response}, of prompt, answer, task,
    choices, system, messages, tools; empty: the columns bear these names."""

    def problems(self) -> list[str]:
        """A kind of source that does not exist, and what the kind finds without importing its library."""
        prefix, colon, location = self.source.partition(":")
        if not colon or prefix not in kinds():
            known = ", ".join(f"{name}:" for name in kinds())
            found = [f"source: {self.source!r} does not begin with a known prefix; known: {known}"]
        else:
            source = kinds()[prefix](location, self)
            beside = f" and evaluation_source {self.evaluation_source}" if self.evaluation_source else ""
            found = [
                f"{name}: has no effect with source {self.source}{beside}; remove it"
                for name in source.no_effect()
                if getattr(self, name) != getattr(TaskConfig(self.source), name)
            ]
            found += source.problems()
        if self.train_examples == 0 and self.evaluation_examples == 0:
            found.append("train_examples: is 0 and so is evaluation_examples, which leaves nothing; raise one of them")
        return found

    def library_problems(self) -> list[str]:
        """What the library of the source finds, for an entry without `problems`."""
        prefix, _, location = self.source.partition(":")
        return kinds()[prefix](location, self).library_problems()
