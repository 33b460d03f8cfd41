"""Accuracy with its standard error, per task and as the mean over tasks."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from trex_ds.files import write_json
from trex_ds.tasks.base import normalized


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
    untrained: frozenset[str] = frozenset()
    """Tasks that nothing was trained on; no mean counts them unless it says so."""

    def per_task(self) -> dict[str, Estimate]:
        """Accuracy of each task."""
        return {task: estimate(scores) for task, scores in self._scores().items()}

    def mean(self, untrained: bool = False) -> Estimate:
        """Unweighted mean of the trained tasks' accuracies, or of the others'; n counts items; nan of none."""
        return self._mean(self.per_task(), untrained)

    def gain_over(self, other: Evaluation) -> tuple[dict[str, Estimate], Estimate, Estimate]:
        """Difference to `other` on the same items, with paired standard errors.

        Returns:
            That of each task, the mean of the trained tasks', and the mean of the others'.

        Raises:
            ValueError: if the two evaluations have different items.
        """
        if [(i.task, i.prompt) for i in self.items] != [(i.task, i.prompt) for i in other.items]:
            raise ValueError("the evaluations to compare have different items; evaluate both on the same tasks")
        differences: dict[str, list[float]] = {}
        for mine, theirs in zip(self.items, other.items, strict=True):
            differences.setdefault(mine.task, []).append(mine.score - theirs.score)
        per_task = {task: estimate(values) for task, values in differences.items()}
        return per_task, self._mean(per_task, False), self._mean(per_task, True)

    def best_guess(self) -> dict[str, float]:
        """Accuracy of always giving one answer to a task, the best such answer (or choice, by position).

        An answer counts where it equals the reference; the answer is chosen on these very items.
        """
        answers: dict[str, list[tuple[str, int | None]]] = {}
        for item in self.items:
            answers.setdefault(item.task, []).append((normalized(item.answer), item.choice))
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

    def mean_best_guess(self, untrained: bool = False) -> float:
        """Unweighted mean of the trained tasks' best guesses, or of the others'; nan of none."""
        guesses = [guess for task, guess in self.best_guess().items() if (task in self.untrained) == untrained]
        return math.fsum(guesses) / len(guesses) if guesses else math.nan

    def metrics(self, prefix: str) -> dict[str, float]:
        """`<prefix>/<task>/accuracy`, its standard error and n, and the same of the means."""
        named = {**self.per_task(), "mean": self.mean()}
        if self.untrained:
            named["mean_untrained"] = self.mean(untrained=True)
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
            **({"mean_untrained": asdict(self.mean(untrained=True))} if self.untrained else {}),
            "untrained": sorted(self.untrained),
            "tasks": {task: asdict(result) for task, result in self.per_task().items()},
            "items": [asdict(item) for item in self.items],
        }
        write_json(path, content)

    @classmethod
    def load(cls, path: str | Path) -> Evaluation:
        """Read what `save` wrote."""
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        return cls([Item(**item) for item in content["items"]], frozenset(content.get("untrained", ())))

    def _mean(self, tasks: Mapping[str, Estimate], untrained: bool) -> Estimate:
        return mean_over_tasks([result for task, result in tasks.items() if (task in self.untrained) == untrained])

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


def mean_over_tasks(tasks: Sequence[Estimate]) -> Estimate:
    """Unweighted mean of independent estimates; n is the number of items; nan of none."""
    count = len(tasks)
    if not count:
        return Estimate(0, math.nan, math.nan)
    value = math.fsum(task.value for task in tasks) / count
    error = math.sqrt(math.fsum(task.standard_error**2 for task in tasks)) / count
    return Estimate(sum(task.n for task in tasks), value, error)
