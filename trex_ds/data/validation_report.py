"""What a validation found, as a table and as JSON."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from pathlib import Path

from rich.table import Table

from trex_ds.console import console
from trex_ds.data.validation import TaskReport, Validation
from trex_ds.files import write_json

_BARS = "▁▂▃▄▅▆▇█"
_BINS = 12
_COUNTS = {
    "train": "train",
    "eval": "evaluation",
    "too long": "too_long",
    "repeated": "duplicates",
    "leaked": "leaked",
}
_TEXTS = {
    "empty": "empty_answers",
    "unlearned": "unsupervised",
    "unscored": "unreachable",
    "control": "control",
}
_QUANTILES = {"min": 0.0, "median": 0.5, "p95": 0.95, "max": 1.0}


def print_validation(validation: Validation) -> None:
    """Tables of counts and of lengths, what their columns mean, and every problem."""
    counts = Table(title="Examples", title_justify="left")
    texts = Table(title="Of these", title_justify="left")
    lengths = Table(title="Tokens of prompt and answer", title_justify="left")
    for table, names in ((counts, _COUNTS), (texts, _TEXTS), (lengths, _QUANTILES)):
        table.add_column("task", overflow="fold")
        for name in names:
            table.add_column(name, justify="right", no_wrap=True)
    lengths.add_column("min to max")
    for report in validation.tasks:
        for table, names in ((counts, _COUNTS), (texts, _TEXTS)):
            table.add_row(report.task, *(f"{getattr(report, name):,}" for name in names.values()))
        quantiles = (f"{length:,}" for length in _quantiles(report).values())
        lengths.add_row(report.task, *quantiles, histogram(report.lengths))
    out = console()
    if validation.tasks:
        out.print(counts)
        out.print(
            "too long: left out of training by data.max_length; "
            "repeated: prompt and answer of another training example; "
            "leaked: training prompts that are evaluated, in any task",
        )
        out.print(texts)
        out.print(
            "empty: answers without text; unlearned: training examples of which only the end of sequence is learned; "
            "unscored: evaluation answers of more than evaluation.max_new_tokens tokens, which can never score; "
            "control: examples with names of special tokens in their texts",
        )
        out.print(lengths)
    for warning in validation.warnings:
        out.print(f"warning: {warning}")
    for problem in validation.problems:
        out.print(f"error: {problem}")


def save_validation(validation: Validation, path: Path) -> None:
    """All counts, every length with its number of examples, and the problems, as JSON."""
    tasks = [
        {**asdict(report), "lengths": dict(sorted(report.lengths.items())), "quantiles": _quantiles(report)}
        for report in validation.tasks
    ]
    write_json(path, {"tasks": tasks, "problems": validation.problems, "warnings": validation.warnings})


def histogram(lengths: Counter[int]) -> str:
    """Bars of equal width from the shortest to the longest; a bin without examples is a space."""
    low, high = min(lengths), max(lengths)
    bins = [0] * min(_BINS, high - low + 1)
    for length, count in lengths.items():
        bins[(length - low) * len(bins) // (high - low + 1)] += count
    highest = max(bins)
    return "".join(_BARS[(count * len(_BARS) - 1) // highest] if count else " " for count in bins)


def _quantiles(report: TaskReport) -> dict[str, int]:
    return {name: report.quantile(share) for name, share in _QUANTILES.items()}
