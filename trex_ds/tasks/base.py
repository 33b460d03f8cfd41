"""What a task is: examples to train and to evaluate on, and a way to score an answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Example:
    """One prompt with its reference answer.

    `record` is what the task's own scorer needs beyond the answer (a reasoning-gym entry, say);
    it never reaches the model.
    """

    prompt: str
    answer: str
    task: str
    choices: tuple[str, ...] = ()
    record: Mapping[str, Any] | None = field(default=None, compare=False, repr=False)


Scorer = Callable[[Example, str], float]


def exact_match(example: Example, generated: str) -> float:
    """1.0 if the generated text is the reference answer up to case and white space, else 0.0."""
    return float(_normalise(generated) == _normalise(example.answer))


def _normalise(text: str) -> str:
    return " ".join(text.split()).casefold()


@dataclass(frozen=True)
class Task:
    """A named task; no prompt is in both its train and its evaluation examples.

    `weight` is how often a training example is seen in an epoch (2.0: twice, 0.5: every other one).
    `score` takes an example and the generated text and returns a value in [0, 1]; it can be pickled.
    """

    name: str
    train: list[Example]
    evaluation: list[Example]
    score: Scorer = exact_match
    weight: float = 1.0
