"""Accuracy with its standard error, per task and as the mean over tasks."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from trex_ds.files import atomic_path
from trex_ds.tasks import normalised


@dataclass(frozen=True)
class Estimate:
    """A mean over `n` items (or tasks) with its standard error."""

    n: int
    value: float
    standard_error: float


@dataclass(frozen=True)
class Item:
    """One scored evaluation example."""

    task: str
    prompt: str
    answer: str
    generated: str
    score: float
    choice: int | None = None
    """Position of the right answer among the example's choices, where it has some."""


@dataclass(frozen=True)
class Evaluation:
    """Every item of an evaluation, in the order of the tasks' examples."""

    items: Sequence[Item]

    def per_task(self) -> dict[str, Estimate]:
        """Accuracy of each task."""
        return {task: estimate(scores) for task, scores in self._scores().items()}

    def mean(self) -> Estimate:
        """Unweighted mean of the tasks' accuracies; n is the number of items; nan of none."""
        return _mean_over_tasks(self.per_task())

    def gain_over(self, other: Evaluation) -> tuple[dict[str, Estimate], Estimate]:
        """Difference to `other` on the same items, per task and mean, with paired standard errors.

        Raises:
            ValueError: if the two evaluations have different items.
        """
        if [(i.task, i.prompt) for i in self.items] != [(i.task, i.prompt) for i in other.items]:
            raise ValueError("the evaluations to compare have different items; evaluate both on the same tasks")
        differences: dict[str, list[float]] = {}
        for mine, theirs in zip(self.items, other.items, strict=True):
            differences.setdefault(mine.task, []).append(mine.score - theirs.score)
        per_task = {task: estimate(values) for task, values in differences.items()}
        return per_task, _mean_over_tasks(per_task)

    def best_guess(self) -> dict[str, float]:
        """Accuracy of each task for who gives one answer to all of it, the best such answer (or choice, by position).

        An answer counts where it equals the reference; the answer is chosen on these very items.
        """
        answers: dict[str, list[tuple[str, int | None]]] = {}
        for item in self.items:
            answers.setdefault(item.task, []).append((normalised(item.answer), item.choice))
        return {
            task: max(
                count
                for kind in zip(*given, strict=True)
                for value, count in Counter(kind).items()
                if value is not None
            )
            / len(given)
            for task, given in answers.items()
        }

    def mean_best_guess(self) -> float:
        """Unweighted mean of the tasks' best guesses; nan of none."""
        guesses = self.best_guess().values()
        return math.fsum(guesses) / len(guesses) if guesses else math.nan

    def metrics(self, prefix: str) -> dict[str, float]:
        """`<prefix>/<task>/accuracy`, its standard error and n, and the same of the mean."""
        named = {**self.per_task(), "mean": self.mean()}
        found: dict[str, float] = {}
        for name, result in named.items():
            found[f"{prefix}/{name}/accuracy"] = result.value
            found[f"{prefix}/{name}/standard_error"] = result.standard_error
            found[f"{prefix}/{name}/n"] = float(result.n)
        return found

    def save(self, path: str | Path) -> None:
        """Write summary and items as JSON."""
        content = {
            "mean": asdict(self.mean()),
            "tasks": {task: asdict(result) for task, result in self.per_task().items()},
            "items": [asdict(item) for item in self.items],
        }
        with atomic_path(path) as temporary:
            temporary.write_text(json.dumps(content, indent=1, ensure_ascii=False), encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> Evaluation:
        """Read what `save` wrote."""
        return cls([Item(**item) for item in json.loads(Path(path).read_text(encoding="utf-8"))["items"]])

    def _scores(self) -> dict[str, list[float]]:
        scores: dict[str, list[float]] = {}
        for item in self.items:
            scores.setdefault(item.task, []).append(item.score)
        return scores


def estimate(values: Sequence[float]) -> Estimate:
    """Mean and standard error (sample standard deviation / sqrt n); nan for the error of one value."""
    n = len(values)
    mean = math.fsum(values) / n
    if n == 1:
        return Estimate(1, mean, math.nan)
    variance = math.fsum((v - mean) ** 2 for v in values) / (n - 1)
    return Estimate(n, mean, math.sqrt(variance / n))


def _mean_over_tasks(tasks: Mapping[str, Estimate]) -> Estimate:
    count = len(tasks)
    if not count:
        return Estimate(0, math.nan, math.nan)
    value = math.fsum(t.value for t in tasks.values()) / count
    error = math.sqrt(math.fsum(t.standard_error**2 for t in tasks.values())) / count
    return Estimate(sum(t.n for t in tasks.values()), value, error)
