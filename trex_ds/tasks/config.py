"""Which tasks a recipe trains and evaluates on."""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, Any

from pydantic import Field, PositiveInt

from trex_ds.config import section
from trex_ds.tasks.sources import source_problems


@section
class TaskConfig:
    """One source of tasks."""

    source: str
    """gym:NAME, a task of reasoning-gym made on the spot, or file:PATH, a JSONL file of prompts and answers."""
    weight: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    """How often a training example is seen in an epoch: 2.0 is twice, 0.5 is every other one."""
    train_examples: PositiveInt | None = None
    """Training examples of each task; null: 1000 of a gym task, all of a file."""
    evaluation_examples: PositiveInt | None = None
    """Evaluation examples of each task; null: 100 of a gym task, all of a file."""
    evaluation_source: str | None = None
    """file: only. file:PATH of the evaluation examples; null: a part of the source's own."""
    evaluation_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """file: only. The part of the prompts that is kept for evaluation."""
    seed: int = 0
    """Seed of what a gym task makes and of how a file is split."""
    options: dict[str, Any] = field(default_factory=dict)
    """gym: only. Settings of the task, such as {max_words: 10}."""

    def problems(self) -> list[str]:
        """A source that does not exist, and settings that it does not take."""
        return source_problems(self)
