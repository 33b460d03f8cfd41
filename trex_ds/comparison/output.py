"""The results of a comparison on disk and on the screen."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from trex_ds.comparison.bootstrap import RESAMPLES
from trex_ds.comparison.pareto import draw_pareto
from trex_ds.comparison.results import MethodResult, Pair, Results
from trex_ds.console import console
from trex_ds.environment import describe_environment
from trex_ds.evaluation.accuracy import Evaluation
from trex_ds.files import atomic_path, write_json
from trex_ds.intervals import CONFIDENCE, Interval
from trex_ds.tables import Table

RESULTS_FILE, REPORT_FILE, PLOT_FILE, SCORES_FILE = "comparison.json", "comparison.md", "pareto.png", "scores.csv"

STATISTICS = {"resamples": RESAMPLES, "level": CONFIDENCE, "correction": "Holm", "seed": 0}
"""How intervals and p-values are made."""


def write_results(results: Results, folder: Path, mlflow_run: str | None) -> None:
    """`comparison.json`, `comparison.md` and, once a method has an accuracy, `pareto.png`."""
    content = {
        **asdict(results),
        "statistics": STATISTICS,
        "mlflow_run": mlflow_run or earlier_mlflow_run(folder),
        "environment": describe_environment(),
    }
    write_json(folder / RESULTS_FILE, content)
    with atomic_path(folder / REPORT_FILE) as temporary:
        temporary.write_text(report(results), encoding="utf-8")
    draw_pareto(results, folder / PLOT_FILE)


def write_scores(evaluations: Mapping[tuple[str, int], Evaluation], folder: Path) -> None:
    """`scores.csv`: a line for each answer of each run, from which every figure of a comparison can be made again."""
    with atomic_path(folder / SCORES_FILE) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["method", "seed", "task", "item", "score"])
        for (method, seed), evaluation in evaluations.items():
            for number, item in enumerate(evaluation.items):
                writer.writerow([method, seed, item.task, number, item.score])


def earlier_mlflow_run(folder: Path) -> str | None:
    """The MLflow run that an interrupted comparison in `folder` has begun."""
    file = folder / RESULTS_FILE
    return json.loads(file.read_text(encoding="utf-8"))["mlflow_run"] if file.is_file() else None


def print_results(results: Results, folder: Path, how_to_open_mlflow: str) -> None:
    """The tables of the report, its notes, and where everything is."""
    # Without markup: brackets in an error are text.
    out = console()
    # Columns for single tasks would not fit a screen; the Markdown has them.
    for table in _tables(results, []):
        out.print(table)
    for line in [*_findings(results), *results.notes]:
        out.print(line)
    out.print(f"results: {folder / RESULTS_FILE}, {folder / REPORT_FILE}, {folder / PLOT_FILE}")
    out.print(f"MLflow: {how_to_open_mlflow}")


def report(results: Results) -> str:
    """The same as Markdown."""
    parts = ["# Comparison\n"]
    parts += [table.markdown() + "\n" for table in _tables(results, list(results.base_tasks))]
    parts.append("## What is significant\n")
    parts.append("\n".join(f"- {line}" for line in _findings(results)) + "\n")
    parts.append(f"![accuracy against parameters]({PLOT_FILE})\n")
    parts.append("## To be known\n")
    parts.append("\n".join(f"- {line}" for line in results.notes) + "\n")
    return "\n".join(parts)


def _tables(results: Results, tasks: Sequence[str]) -> list[Table]:
    """All tables, with a column for each of `tasks` where accuracies stand."""
    accuracy: list[list[str]] = []
    done = [method for method in results.methods if method.accuracy is not None]
    if done:
        guesses, base = results.best_guess_tasks, results.base_tasks
        accuracy = [
            ["best guess", "", *(_percent(guesses[task]) for task in tasks), _percent(results.best_guess)],
            ["base model", "", *(_percent(base[task]) for task in tasks), _percent(results.base_accuracy)],
        ]
    for method in done:
        seeds = str(sum(run.status == "finished" for run in method.runs))
        values = [_interval(method.tasks[task]) for task in tasks]
        accuracy.append([method.name, seeds, *values, _interval(method.accuracy)])
    heads = [f"{task} (not trained on)" if task in results.untrained_tasks else task for task in tasks]
    tables = [Table("Methods", _COST_HEAD, [_cost_row(method) for method in results.methods])]
    if rates := sorted({rate for method in results.methods for rate in method.tuning}):
        head = ["method", *(f"{rate:g}" for rate in rates)]
        rows = [[method.name, *(_loss(method, rate) for rate in rates)] for method in results.methods if method.tuning]
        tables.append(Table("Loss on left-out examples by learning rate, * chosen", head, rows))
    tables.append(Table("Accuracy in %, with 95% intervals", ["method", "seeds", *heads, "mean"], accuracy))
    if results.pairs:
        head = ["method", "against", "seeds", *heads, "mean", "p (Holm)", "parameters", "step time", "peak memory"]
        rows = [_pair_row(pair, tasks) for pair in results.pairs]
        tables.append(Table("Differences in points, paired, with 95% intervals; ratios of cost", head, rows))
    return tables


def _loss(method: MethodResult, rate: float) -> str:
    loss = method.tuning.get(rate)
    return "failed" if loss is None else f"{loss:.4f}" + (" *" if rate == method.learning_rate else "")


_COST_HEAD = ["method", "learning rate", "trainable parameters", "step seconds", "peak memory, MiB", "runs"]


def _cost_row(method: MethodResult) -> list[str]:
    states = [run.status for run in method.runs]
    counts = ", ".join(f"{states.count(status)} {status}" for status in dict.fromkeys(states))
    if method.accuracy is None:
        cost = ["", "", ""]
    else:
        mebibytes = (method.peak_bytes or 0) / 2**20
        cost = [f"{method.trainable_parameters:,}", f"{method.step_seconds:.3f}", f"{mebibytes:,.0f}"]
    rate = "" if method.learning_rate is None else f"{method.learning_rate:g}"
    return [method.name, rate, *cost, "no learning rate" if method.error else counts]


def _pair_row(pair: Pair, tasks: Sequence[str]) -> list[str]:
    p = f"{pair.p_corrected:.4f}" + (" *" if pair.significant else "")
    ratios = [f"{ratio:.2f}x" for ratio in (pair.parameters_ratio, pair.step_time_ratio, pair.peak_ratio)]
    differences = [_interval(pair.tasks[task], sign=True) for task in tasks]
    return [
        *(pair.method, pair.baseline, str(len(pair.seeds)), *differences),
        *(_interval(pair.difference, sign=True), p, *ratios),
    ]


def _findings(results: Results) -> list[str]:
    """A sentence for each pair."""
    lines = []
    for pair in results.pairs:
        verdict = "not significantly different from"
        if pair.significant:
            verdict = "significantly better than" if pair.difference.value > 0 else "significantly worse than"
        lines.append(
            f"{pair.method} is {verdict} {pair.baseline}: {_interval(pair.difference, sign=True)} points, "
            f"p = {pair.p_corrected:.4f} after Holm's correction for {len(results.pairs)} pairs"
        )
    return lines or ["Nothing yet: no method and baseline have both finished a seed."]


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}"


def _interval(interval: Interval | None, sign: bool = False) -> str:
    if interval is None:
        return ""
    form = "{:+.1f}" if sign else "{:.1f}"
    value, low, high = (form.format(100 * x) for x in (interval.value, interval.low, interval.high))
    return f"{value} ({low} to {high})"
