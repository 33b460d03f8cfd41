"""What a finished job prints."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from trex_ds.evaluation import Estimate, Evaluation


@dataclass(frozen=True)
class Summary:
    """The outcome of a training job."""

    base: Evaluation
    adapted: Evaluation
    trainable_parameters: int
    base_parameters: int
    tokens_per_second: float
    """Median over the logged intervals of tokens that are not padding, all ranks together."""
    adapter: Path


def print_summary(summary: Summary, how_to_open_mlflow: str) -> None:
    """The table of accuracies, and a line each for size, speed, adapter and MLflow."""
    console = Console(soft_wrap=True)
    console.print(accuracy_table(summary.base, summary.adapted))
    share = summary.trainable_parameters / summary.base_parameters
    console.print(
        f"trainable parameters: {summary.trainable_parameters:,} ({share:.2%} of the base model)", highlight=False
    )
    console.print(f"speed: {summary.tokens_per_second:,.0f} tokens/s (padding not counted)", highlight=False)
    console.print(f"adapter: {summary.adapter}", highlight=False)
    console.print(f"MLflow: {how_to_open_mlflow}", highlight=False)


def accuracy_table(base: Evaluation, adapted: Evaluation) -> Table:
    """Accuracy of both models per task in percent, with the paired difference, and the mean."""
    table = Table(title="Accuracy in % (± standard error)", title_justify="left")
    table.add_column("task")
    for name in ("n", "base", "adapted", "difference"):
        table.add_column(name, justify="right")
    before, after = base.per_task(), adapted.per_task()
    gains, mean_gain = adapted.gain_over(base)
    for task, result in after.items():
        table.add_row(task, str(result.n), _percent(before[task]), _percent(result), _percent(gains[task], sign=True))
    table.add_section()
    mean = adapted.mean()
    table.add_row("mean", str(mean.n), _percent(base.mean()), _percent(mean), _percent(mean_gain, sign=True))
    return table


def _percent(estimate: Estimate, sign: bool = False) -> str:
    value = f"{100 * estimate.value:+.1f}" if sign else f"{100 * estimate.value:.1f}"
    return f"{value} ± {100 * estimate.standard_error:.1f}"
