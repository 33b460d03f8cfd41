"""A report that nobody measured."""

from __future__ import annotations

from typing import Any

from trex_ds.adapters.counts import ROLES
from trex_ds.intervals import Interval
from trex_ds.reporting import claims
from trex_ds.reporting.approximation import Approximation
from trex_ds.reporting.result import Report
from trex_ds.reporting.throughput import Comparison, Speed, Throughput

FALLING = Approximation(
    ((1, 1), (2, 2), (2, 4)), [[0.9, 0.8, 0.85], [0.5, 0.45, 0.5], [0.3, 0.2, 0.25]], [[0.9] * 3] * 3
)
RISING = Approximation(
    ((1, 1), (2, 2), (2, 4)), [[0.5, 0.45, 0.5], [0.9, 0.8, 0.85], [0.3, 0.2, 0.25]], [[0.9] * 3] * 3
)


def roles(**sizes: int) -> dict[str, int]:
    return {**dict.fromkeys(ROLES, 0), **{name.replace("_", " "): size for name, size in sizes.items()}}


def compared(method: str, baseline: str, low: float, value: float, high: float) -> Comparison:
    ratios = [low, value, value, value, high, value]
    speed = Speed(1.5, 300.0, 280.0, 40.0)
    return Comparison(method, baseline, ratios, Interval(value, low, high), value, value, speed, speed)


def throughput(*comparisons: Comparison) -> Throughput:
    names = {name for c in comparisons for name in (c.method, c.baseline)}
    return Throughput("ds.json", 2, list(comparisons), dict.fromkeys(names, 2**20))


def report(saved: float = 35.0, **overrides: Any) -> Report:
    """A report with "trex" saving so many percent of lora_r32's parameters; its model's name has to be escaped."""
    own = {"trex": roles(router=round(1000 * (1 - saved / 100))), "lora_r32": roles(experts_A=1000)}
    own |= {"lora_r16": roles(experts_A=500)}
    counts = {"<a & b>": own}
    times = throughput(compared("lora_r32", "lora_r32", 0.99, 1.0, 1.01), compared("trex", "lora_r32", 1.01, 1.05, 1.2))
    verdicts = [
        *claims.parameters("<a & b>", own, ["lora_r32"]),
        *claims.training_time(times),
        *claims.accuracy(None, 0.0, {}, {}),
        claims.approximation(FALLING),
        claims.clusters("all examples are of one task"),
        *claims.specialized("no adapter"),
    ]
    environment = {"date": "2026-01-01", "ranks": 2, "cpu": "a CPU", "gpus": [], "versions": {"torch": "1"}}
    return Report(**{**vars(Report("<a & b>", 3, counts, times, FALLING, verdicts, environment)), **overrides})
