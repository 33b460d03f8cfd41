"""What a validation found, as a table and as JSON."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from pathlib import Path

from trex_ds.console import console
from trex_ds.data.validation import TaskReport, Validation
from trex_ds.files import write_json
from trex_ds.tables import Table

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
    counts, texts = (
        Table(
            title,
            ["task", *names],
            [[r.task, *(f"{getattr(r, n):,}" for n in names.values())] for r in validation.tasks],
        )
        for title, names in (("Examples", _COUNTS), ("Of these", _TEXTS))
    )
    lengths = Table(
        "Tokens of prompt and answer",
        ["task", *_QUANTILES, "min to max"],
        [
            [r.task, *(f"{length:,}" for length in _quantiles(r).values()), histogram(r.lengths)]
            for r in validation.tasks
        ],
    )
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
