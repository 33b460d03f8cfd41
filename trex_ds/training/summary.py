"""What a finished job prints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from trex_ds.console import console
from trex_ds.environment import describe_environment
from trex_ds.evaluation.accuracy import Estimate, Evaluation, Item
from trex_ds.files import write_json
from trex_ds.tables import Table
from trex_ds.training.trainer import Seen
from trex_ds.wording import shortened

_LONGEST = 200
"""Characters of a prompt or answer that are printed: a prompt's last, where the question mostly is."""


@dataclass(frozen=True)
class Example:
    """One evaluation example with the answers of both models."""

    base: Item
    adapted: Item

    def lines(self) -> list[str]:
        """Task, prompt, reference and both answers, a line each."""
        prompt, answer = " ".join(self.adapted.prompt.split()), " ".join(self.adapted.answer.split())
        return [
            self.adapted.task,
            f"    prompt   {prompt if len(prompt) <= _LONGEST else '...' + prompt[3 - _LONGEST :]}",
            f"    answer   {shortened(answer, _LONGEST)}",
            f"    base     {shortened(' '.join(self.base.generated.split()), _LONGEST)}{_mark(self.base)}",
            f"    adapted  {shortened(' '.join(self.adapted.generated.split()), _LONGEST)}{_mark(self.adapted)}",
        ]


@dataclass(frozen=True)
class Summary:
    """The outcome of a training job."""

    base: Evaluation
    adapted: Evaluation
    trainable_parameters: int
    base_parameters: int
    tokens_per_second: float
    """Median over the logged intervals of tokens that are not padding, all ranks together."""
    step_seconds: float
    """Median over the logged intervals of an optimizer step's time."""
    peak_bytes: int
    """Largest use of the device's memory by any rank from the first step to the last, with evaluations in between."""
    seen: Seen
    rows: Mapping[str, int]
    """Training rows of each task in an epoch."""
    steps: int
    seconds: float
    """Seconds of the whole job, from the start of the process group to the saved adapter."""
    adapter: Path

    def examples(self) -> list[Example]:
        """The first evaluation example of each task."""
        found: dict[str, Example] = {}
        for before, after in zip(self.base.items, self.adapted.items, strict=True):
            found.setdefault(after.task, Example(before, after))
        return list(found.values())

    def figures(self) -> dict[str, Any]:
        """Sizes, speed and data of the job, as plain data."""
        return {
            "trainable_parameters": self.trainable_parameters,
            "base_parameters": self.base_parameters,
            "tokens_per_second": self.tokens_per_second,
            "steps": self.steps,
            "step_seconds": self.step_seconds,
            "peak_bytes": self.peak_bytes,
            "tokens_seen": self.seen.tokens,
            "data_checksum": self.seen.checksum,
            "seconds": self.seconds,
        }

    def save(self, path: Path, seed: int) -> None:
        """Write every figure of the summary with date, hardware, versions and seed, as JSON."""
        gains, *mean_gains = self.adapted.gain_over(self.base)
        before, after = self.base.per_task(), self.adapted.per_task()
        guesses = self.adapted.best_guess()
        content = {
            "tasks": {
                task: {
                    "trained": task not in self.adapted.untrained,
                    "best_guess": guesses[task],
                    "base": asdict(before[task]),
                    "adapted": asdict(after[task]),
                    "difference": asdict(gains[task]),
                }
                for task in after
            },
            **{
                name: {
                    "best_guess": self.adapted.mean_best_guess(untrained),
                    "base": asdict(self.base.mean(untrained)),
                    "adapted": asdict(self.adapted.mean(untrained)),
                    "difference": asdict(mean_gains[untrained]),
                }
                for name, untrained in {"mean": False, "mean_untrained": True}.items()
                if self.adapted.untrained or not untrained
            },
            "examples": [
                {
                    "task": one.adapted.task,
                    "prompt": one.adapted.prompt,
                    "answer": one.adapted.answer,
                    "base": one.base.generated,
                    "adapted": one.adapted.generated,
                }
                for one in self.examples()
            ],
            **self.figures(),
            "seed": seed,
            "environment": describe_environment(),
        }
        write_json(path, content)


def print_summary(summary: Summary, how_to_open_mlflow: str) -> None:
    """The table of accuracies, answers of both models, and a line each for size, speed, adapter and MLflow."""
    out = console()
    out.print(accuracy_table(summary.base, summary.adapted))
    out.print("Answers to the first evaluation example of each task")
    for example in summary.examples():
        out.print("\n".join(example.lines()))
    share = summary.trainable_parameters / summary.base_parameters
    out.print(f"trainable parameters: {summary.trainable_parameters:,} ({share:.2%} of the base model)")
    out.print(f"speed: {summary.tokens_per_second:,.0f} tokens/s (padding not counted)")
    out.print(f"adapter: {summary.adapter}")
    out.print(f"MLflow: {how_to_open_mlflow}")


def accuracy_table(base: Evaluation, adapted: Evaluation) -> Table:
    """Accuracy in percent, per task and mean: of the best single answer, of both models, and their difference.

    Tasks that were not trained on come after the others, marked, with a mean of their own.
    """
    rows: list[list[str]] = []
    lines_after: set[int] = set()
    before, after = base.per_task(), adapted.per_task()
    gains, *mean_gains = adapted.gain_over(base)
    guesses = adapted.best_guess()
    for untrained, mark in ((False, ""), (True, " (not trained on)")):
        tasks = [task for task in guesses if (task in adapted.untrained) == untrained]
        if untrained and not tasks:
            break
        for task in tasks:
            values = (_percent(before[task]), _percent(after[task]), _percent(gains[task], sign=True))
            rows.append([f"{task}{mark}", str(after[task].n), f"{100 * guesses[task]:.1f}", *values])
        lines_after |= {len(rows) - 1, len(rows)}
        mean, guess = adapted.mean(untrained), adapted.mean_best_guess(untrained)
        values = (_percent(base.mean(untrained)), _percent(mean), _percent(mean_gains[untrained], sign=True))
        rows.append([f"mean{mark}", str(mean.n), f"{100 * guess:.1f}", *values])
    head = ["task", "n", "best guess", "base", "adapted", "difference"]
    return Table("Accuracy in % (± standard error)", head, rows, lines_after=lines_after)


def _mark(item: Item) -> str:
    return {1.0: "  (right)", 0.0: "  (wrong)"}.get(item.score, f"  (score {item.score:.2f})")


def _percent(estimate: Estimate, sign: bool = False) -> str:
    value = f"{100 * estimate.value:+.1f}" if sign else f"{100 * estimate.value:.1f}"
    return f"{value} ± {100 * estimate.standard_error:.1f}"
