"""What a finished job prints."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from trex_ds.environment import describe_environment
from trex_ds.evaluation import Estimate, Evaluation
from trex_ds.files import atomic_path
from trex_ds.training.trainer import Seen


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
    """Median over the logged intervals of an optimiser step's time."""
    peak_bytes: int
    """Largest use of the device's memory by any rank from the first step to the last, with evaluations in between."""
    seen: Seen
    rows: Mapping[str, int]
    """Training rows of each task in an epoch."""
    steps: int
    seconds: float
    """Of the whole job, from the start of the process group to the saved adapter."""
    adapter: Path

    def save(self, path: Path, seed: int) -> None:
        """Write every figure of the summary with date, hardware, versions and seed, as JSON."""
        gains, mean_gain = self.adapted.gain_over(self.base)
        before, after = self.base.per_task(), self.adapted.per_task()
        guesses = self.adapted.best_guess()
        content = {
            "tasks": {
                task: {
                    "best_guess": guesses[task],
                    "base": asdict(before[task]),
                    "adapted": asdict(after[task]),
                    "difference": asdict(gains[task]),
                }
                for task in after
            },
            "mean": {
                "best_guess": self.adapted.mean_best_guess(),
                "base": asdict(self.base.mean()),
                "adapted": asdict(self.adapted.mean()),
                "difference": asdict(mean_gain),
            },
            "trainable_parameters": self.trainable_parameters,
            "base_parameters": self.base_parameters,
            "tokens_per_second": self.tokens_per_second,
            "steps": self.steps,
            "step_seconds": self.step_seconds,
            "peak_bytes": self.peak_bytes,
            "tokens_seen": self.seen.tokens,
            "data_checksum": self.seen.checksum,
            "seconds": self.seconds,
            "seed": seed,
            "environment": describe_environment(),
        }
        with atomic_path(path) as temporary:
            temporary.write_text(json.dumps(content, indent=1))


def print_summary(summary: Summary, how_to_open_mlflow: str) -> None:
    """The table of accuracies, and a line each for size, speed, adapter and MLflow."""
    console = Console(soft_wrap=True, markup=False)
    console.print(accuracy_table(summary.base, summary.adapted))
    share = summary.trainable_parameters / summary.base_parameters
    console.print(
        f"trainable parameters: {summary.trainable_parameters:,} ({share:.2%} of the base model)", highlight=False
    )
    console.print(f"speed: {summary.tokens_per_second:,.0f} tokens/s (padding not counted)", highlight=False)
    console.print(f"adapter: {summary.adapter}", highlight=False)
    console.print(f"MLflow: {how_to_open_mlflow}", highlight=False)


def accuracy_table(base: Evaluation, adapted: Evaluation) -> Table:
    """Accuracy in percent, per task and mean: of the best single answer, of both models, and their difference."""
    table = Table(title="Accuracy in % (± standard error)", title_justify="left")
    table.add_column("task")
    for name in ("n", "best guess", "base", "adapted", "difference"):
        table.add_column(name, justify="right")
    before, after = base.per_task(), adapted.per_task()
    gains, mean_gain = adapted.gain_over(base)
    for task, guess in adapted.best_guess().items():
        values = (_percent(before[task]), _percent(after[task]), _percent(gains[task], sign=True))
        table.add_row(task, str(after[task].n), f"{100 * guess:.1f}", *values)
    table.add_section()
    mean = adapted.mean()
    values = (_percent(base.mean()), _percent(mean), _percent(mean_gain, sign=True))
    table.add_row("mean", str(mean.n), f"{100 * adapted.mean_best_guess():.1f}", *values)
    return table


def _percent(estimate: Estimate, sign: bool = False) -> str:
    value = f"{100 * estimate.value:+.1f}" if sign else f"{100 * estimate.value:.1f}"
    return f"{value} ± {100 * estimate.standard_error:.1f}"
