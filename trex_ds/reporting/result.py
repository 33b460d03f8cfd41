"""What a report holds, as plain data, and as tables that the screen, Markdown and the page share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from trex_ds.adapters.counts import ROLES, trained
from trex_ds.intervals import Interval
from trex_ds.reporting.approximation import Approximation
from trex_ds.reporting.claims import Verdict
from trex_ds.reporting.throughput import Comparison, Speed, Throughput
from trex_ds.tables import Table


@dataclass(frozen=True)
class Report:
    """A whole report."""

    model: str
    seed: int
    """Seed of the recipe: of the data's order, and of all that is drawn."""
    counts: Mapping[str, Mapping[str, Mapping[str, int]]]
    """Model, method, role: parameters."""
    throughput: Throughput
    approximation: Approximation
    verdicts: Sequence[Verdict]
    environment: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Convert to a dictionary for JSON."""
        return asdict(self)

    def metrics(self) -> dict[str, float]:
        """Metrics for a tracker."""
        found: dict[str, float] = {}
        for verdict in self.verdicts:
            found[f"report/{verdict.name}/holds"] = {"holds": 1.0, "does not hold": 0.0}.get(verdict.outcome, -1.0)
            if verdict.measured is not None:
                found[f"report/{verdict.name}/measured"] = verdict.measured.value
                found[f"report/{verdict.name}/low"] = verdict.measured.low
                found[f"report/{verdict.name}/high"] = verdict.measured.high
        for comparison in self.throughput.comparisons:
            sides = {comparison.method: comparison.method_speed, comparison.baseline: comparison.baseline_speed}
            for method, speed in sides.items():
                found |= {f"report/speed/{method}/{name}": value for name, value in asdict(speed).items()}
        found |= {f"report/peak_bytes/{method}": float(size) for method, size in self.throughput.peak_bytes.items()}
        for method, roles in self.counts[self.model].items():
            found[f"report/trainable_parameters/{method}"] = float(trained(roles))
        return found


def place(report: Report) -> str:
    """Date, hardware and seed of the measurement, in a line."""
    where = report.environment
    hardware = f"{where['ranks']} ranks, {where['cpu']}, {', '.join(where['gpus']) or 'no GPU'}"
    return f"{where['date']}, {hardware}, seed {report.seed}"


def versions(report: Report) -> str:
    """Versions of the packages that it was measured with, in a line."""
    return ", ".join(f"{name} {version}" for name, version in report.environment["versions"].items())


def tables(report: Report) -> list[Table]:
    """Everything that a report says in tables, the verdicts first."""
    return [
        verdict_table(report.verdicts),
        *_times(report.throughput),
        _totals(report.counts),
        *(_roles(model, methods) for model, methods in report.counts.items()),
        _errors(report.approximation),
    ]


def verdict_table(verdicts: Sequence[Verdict]) -> Table:
    """One row a verdict."""
    rows = [
        [
            verdict.claim,
            verdict.against,
            "" if verdict.measured is None else measured(verdict.measured, verdict.unit),
            verdict.outcome + ("" if verdict.checked else " (not checked)"),
            verdict.reason,
        ]
        for verdict in verdicts
    ]
    return Table("Verdicts", ["claim", "against", "measured (95% interval)", "verdict", "how"], rows)


def measured(interval: Interval, unit: str) -> str:
    """A value with its unit, and its interval where it has one."""
    form = {"%": "{:+.1f}", "points": "{:+.2f}", "x": "{:.3f}", "": "{:.3f}"}[unit]
    value, low, high = (form.format(x) for x in (interval.value, interval.low, interval.high))
    shown = f"{value}{'' if unit in ('', 'points') else unit}{' points' if unit == 'points' else ''}"
    return shown if interval.low == interval.high else f"{shown} ({low} to {high})"


def _times(throughput: Throughput) -> list[Table]:
    pairs = [
        [
            comparison.method,
            comparison.baseline + (" (control)" if comparison.is_control else ""),
            str(len(comparison.ratios)),
            measured(comparison.median, "x"),
            f"{comparison.lower_quartile:.3f} to {comparison.upper_quartile:.3f}",
        ]
        for comparison in throughput.comparisons
    ]
    note = (
        f"Whole optimizer steps under {throughput.deepspeed}, in turn A B B A in one process group, on the same real "
        f"batches, {throughput.warm_up_steps} steps of each before them; of each step the slowest rank's time."
    )
    speeds = [
        _speed_row(name, other, speed, throughput.peak_bytes)
        for comparison in throughput.comparisons
        for name, other, speed in _sides(comparison)
    ]
    head = ["method", "beside", "step, s", "padded tokens/s", "real tokens/s", "supervised tokens/s", "peak, MiB"]
    memory = (
        "All ranks' tokens. Peak: of the rank that needs most, in a step while no other engine is alive, above what "
        "the process held before there was any; allocated by torch on a GPU, else resident."
    )
    return [
        Table("Step time", ["method", "against", "pairs", "median ratio (95% interval)", "quartiles"], pairs, note),
        Table("Throughput and memory", head, speeds, memory),
    ]


def _sides(comparison: Comparison) -> list[tuple[str, str, Speed]]:
    """The control has one side: the other is the same method."""
    sides = [(comparison.method, comparison.baseline, comparison.method_speed)]
    if not comparison.is_control:
        sides.append((comparison.baseline, comparison.method, comparison.baseline_speed))
    return sides


def _speed_row(name: str, other: str, speed: Speed, peaks: Mapping[str, int]) -> list[str]:
    rates = (speed.padded_tokens_per_second, speed.real_tokens_per_second, speed.supervised_tokens_per_second)
    memory = f"{peaks[name] / 2**20:,.0f}"
    return [name, other, f"{speed.step_seconds:.3f}", *(f"{rate:,.0f}" for rate in rates), memory]


def _totals(counts: Mapping[str, Mapping[str, Mapping[str, int]]]) -> Table:
    methods = dict.fromkeys(method for own in counts.values() for method in own)
    rows = [[method, *(_number(counts[model].get(method)) for model in counts)] for method in methods]
    note = "lora_equal has the least LoRA rank at which it has at least as many trained parameters as trex."
    return Table("Trained parameters", ["method", *counts], rows, note)


def _number(roles: Mapping[str, int] | None) -> str:
    return "" if roles is None else f"{trained(roles):,}"


def _roles(model: str, methods: Mapping[str, Mapping[str, int]]) -> Table:
    own = trained(methods["trex"])
    rows = []
    for method, roles in methods.items():
        saved = "" if method == "trex" else f"{100 * (1 - own / trained(roles)):+.1f}%"
        rows.append([method, *(f"{roles[role]:,}" if roles[role] else "" for role in ROLES), _number(roles), saved])
    note = "frozen: the adapter's own, but not trained, and not in the sum."
    return Table(f"Parameters by role: {model}", ["method", *ROLES, "trained", "trex saves"], rows, note)


def _errors(found: Approximation) -> Table:
    rows = []
    for size, learned, free in zip(found.sizes, found.learned, found.free, strict=True):
        spread = [f"{sum(e) / len(e):.3f} ({min(e):.3f} to {max(e):.3f})" for e in (learned, free)]
        rows.append([f"{size[0]} x {size[1]}", str(size[0] * size[1]), *spread])
    note = (
        "Relative squared error, mean and range over seeds. Learned: the layer, trained, on new tokens. Free: the best "
        "A and B for the targets themselves, with any G for each of them."
    )
    return Table("Approximation of a set of target updates", ["I x J", "pairs", "learned", "free"], rows, note)
