"""The paper's claims and what the measurements say of them: a pure function, without any measuring."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from trex_ds.reporting.approximation import Approximation
from trex_ds.reporting.counts import trained
from trex_ds.reporting.intervals import Interval
from trex_ds.reporting.routing import AgainstChance, Specialisation
from trex_ds.reporting.throughput import Comparison, Throughput

Outcome = Literal["holds", "does not hold", "cannot be told"]
HOLDS: Outcome = "holds"
FAILS: Outcome = "does not hold"
UNKNOWN: Outcome = "cannot be told"

LEAST_SAVED = 30.0
"""Percent of the parameters, the lower end of the claimed 30-40%."""
MOST_TIME = 1.1
"""Times LoRA's step."""
BIASED = 0.05
"""Where the control's whole interval is farther than this from 1, no step time is believed."""
LORA_BASED = ("lora", "rslora", "dora", "molora", "sira", "smora", "hydralora", "flylora", "mora", "mor1e")


@dataclass(frozen=True)
class Verdict:
    """One claim against one thing that it is measured against."""

    name: str
    """For metrics: no spaces."""
    claim: str
    against: str
    measured: Interval | None
    unit: str
    """%, x, points or nothing."""
    outcome: Outcome
    reason: str
    """How it was decided, or what would tell."""
    checked: bool = True
    """Whether `--check` fails if it does not hold."""


def failed(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """Those that make `--check` fail: the claim counts, could be told, and does not hold."""
    return [verdict for verdict in verdicts if verdict.checked and verdict.outcome == FAILS]


def parameters(model: str, counts: Mapping[str, Mapping[str, int]], claimed: Sequence[str]) -> list[Verdict]:
    """Fewer trainable parameters, against each method of `claimed`; and against LoRA of rank 16, which is not claimed.

    Args:
        model: the base model's name.
        counts: of each method by role, "trex" among them.
        claimed: what the paper compares with: LoRA of rank I*J and 8 experts of rank 4.
    """
    own = trained(counts["trex"])
    found = []
    for name in dict.fromkeys([*claimed, "lora_r16"]):
        other = trained(counts[name])
        saved = 100 * (1 - own / other)
        counts_for_check = name in claimed
        found.append(
            Verdict(
                name=f"parameters/{_plain(model)}/{name}",
                claim="30-40% fewer trainable parameters",
                against=f"{name} on {model}",
                measured=Interval.exact(saved),
                unit="%",
                outcome=HOLDS if saved >= LEAST_SAVED else FAILS,
                reason=f"{own:,} against {other:,}; at least {LEAST_SAVED:g}% saved holds"
                + ("" if counts_for_check else "; the paper does not compare with this, and the check leaves it out"),
                checked=counts_for_check,
            )
        )
    return found


def training_time(throughput: Throughput) -> list[Verdict]:
    """1.1 times the step of each LoRA that was timed."""
    control = next((c for c in throughput.comparisons if c.is_control), None)
    return [_time_of(c, control) for c in throughput.comparisons if not c.is_control and c.method == "trex"]


def _time_of(comparison: Comparison, control: Comparison | None) -> Verdict:
    median = comparison.median
    outcome = at_most(median, MOST_TIME)
    reason = (
        f"95% interval of the median of {len(comparison.ratios)} pairs of steps, wholly at or below {MOST_TIME} holds, "
        "wholly above it does not"
    )
    if control is not None and not (control.median.low <= 1 + BIASED and control.median.high >= 1 - BIASED):
        outcome = UNKNOWN
        noise = f"{control.median.low:.2f} to {control.median.high:.2f}"
        reason = f"the control, {control.method} against itself, took {noise} times as long: quieten the machine"
    elif outcome == UNKNOWN:
        reason += "; raise report.timing.pairs and report.timing.minutes, or quieten the machine"
    return Verdict(
        f"time/{comparison.baseline}",
        "1.1x the training time of LoRA",
        f"{comparison.baseline} on this machine",
        median,
        "x",
        outcome,
        reason,
    )


def at_most(interval: Interval, limit: float) -> Outcome:
    """Whether a value is at most `limit`, as far as its interval tells."""
    if interval.high <= limit:
        return HOLDS
    return FAILS if interval.low > limit else UNKNOWN


def more_than(interval: Interval, limit: float) -> Outcome:
    """Whether a value is more than `limit`, as far as its interval tells."""
    if interval.low > limit:
        return HOLDS
    return FAILS if interval.high <= limit else UNKNOWN


def accuracy(comparison: Mapping[str, Any] | None, margin: float) -> list[Verdict]:
    """More accurate than the best LoRA-based method, on all tasks of a comparison and on those that are not trained on.

    Args:
        comparison: content of a comparison.json; None: there is none.
        margin: points by which it must be better.
    """
    claims = (
        ("accuracy/mean", "up to +1.78 points mean accuracy over LoRA-based methods", None),
        ("accuracy/out_of_distribution", "better on out-of-distribution tasks", _untrained_tasks(comparison)),
    )
    found = []
    for name, claim, tasks in claims:
        measured, against, reason = _accuracy_of(comparison, tasks)
        outcome = UNKNOWN
        if measured is not None:
            outcome = more_than(measured, margin)
            reason += f"; more than {margin:g} points with all of the interval holds"
        found.append(Verdict(name, claim, against, measured, "points", outcome, reason))
    return found


def _untrained_tasks(comparison: Mapping[str, Any] | None) -> list[str]:
    """Tasks of a comparison with no training examples, as their sources end: `lm_eval:bbh_snarks` is bbh_snarks."""
    entries = (comparison or {}).get("recipe", {}).get("tasks", [])
    return [entry["source"].partition(":")[2] for entry in entries if entry.get("train_examples") == 0]


def _accuracy_of(comparison: Mapping[str, Any] | None, tasks: list[str] | None) -> tuple[Interval | None, str, str]:
    against = "the best LoRA-based method"
    if comparison is None:
        return (
            None,
            against,
            (
                "no comparison: run launch/compare.py with trex and LoRA-based methods, and give its result as "
                "--comparison DIR/comparison.json"
            ),
        )
    kinds = {method["name"]: method["adapter"].get("method", "trex") for method in comparison["methods"]}
    # Of several T-REX in a comparison the reference is the one that the claim is about.
    own = comparison["reference"] if kinds.get(comparison["reference"]) == "trex" else None
    pairs = [p for p in comparison["pairs"] if p["method"] == own and kinds[p["baseline"]] in LORA_BASED]
    if tasks is not None:
        known = [task for task in tasks if all(task in pair["tasks"] for pair in pairs)]
        if not known:
            return None, against, "no task of the comparison has train_examples: 0; add some, as BBH's, to its recipe"
        tasks = known
    if not pairs:
        return (
            None,
            against,
            "the comparison has no finished pair of its reference, if that is a T-REX, and a LoRA-based method",
        )
    # Against the best baseline, not the average one: the one that leaves the smallest gain.
    measured, pair = min(((_gain(pair, tasks), pair) for pair in pairs), key=lambda found: found[0].value)
    seeds = len(pair["seeds"])
    note = f"{seeds} seed{'s' * (seeds != 1)}, paired bootstrap, {len(pairs)} LoRA-based baselines"
    if tasks is not None:
        note += f"; tasks {', '.join(tasks)}"
    return measured, f"{pair['baseline']}, the best LoRA-based method of the comparison", note


def _gain(pair: Mapping[str, Any], tasks: list[str] | None) -> Interval:
    """Points; of some tasks alone, their errors are taken as independent."""
    parts = [pair["difference"]] if tasks is None else [pair["tasks"][task] for task in tasks]
    value, low, high = (np.array([part[key] for part in parts]) for key in ("value", "low", "high"))
    below, above = (np.sqrt((side**2).sum()) / len(parts) for side in (value - low, high - value))
    mean = float(value.mean())
    return Interval(100 * mean, 100 * (mean - float(below)), 100 * (mean + float(above)))


def approximation(found: Approximation) -> Verdict:
    """The error falls with I*J: nowhere surely upwards, and surely lower at the end than at the start."""
    whole = found.change(0, len(found.sizes) - 1)
    steps = [found.change(i, i + 1) for i in range(len(found.sizes) - 1)]
    rising = [found.sizes[i + 1] for i, step in enumerate(steps) if step.low > 0]
    outcome = FAILS if rising or whole.low > 0 else HOLDS if whole.high < 0 else UNKNOWN
    first, last = found.sizes[0], found.sizes[-1]
    ratio = Interval(*(float(np.exp(x)) for x in (whole.value, whole.low, whole.high)))
    reason = f"{len(found.learned[0])} seeds, Student's interval of the logarithm; " + (
        f"the error rises at (I, J) = {rising[0]}" if rising else "no step from one (I, J) to the next rises"
    )
    return Verdict(
        name="approximation",
        claim="the error of approximating target updates falls as I*J grows",
        against=f"error at (I, J) = {last} over that at {first}",
        measured=ratio,
        unit="x",
        outcome=outcome,
        reason=reason,
    )


def clusters(found: AgainstChance | None) -> Verdict:
    """Clusters have to do with tasks."""
    claim, against = "semantic clusters are meaningful", "tasks of the training examples"
    if found is None:
        reason = "all training examples are of one task, so clusters cannot be held against tasks"
        return Verdict("clusters", claim, against, None, "", UNKNOWN, reason)
    return _against_chance("clusters", claim, against, found, "adjusted mutual information", True)


def specialised(found: Specialisation | str) -> list[Verdict]:
    """Experts specialise by cluster; `found` may say why it was not looked at."""
    claim, against = "experts specialise by cluster", "permuted clusters of the evaluation prompts"
    if isinstance(found, str):
        return [Verdict("specialisation/token_router", claim, against, None, "%", UNKNOWN, found)]
    what = "share of the variance over prompts that lies between clusters"
    verdicts = [_against_chance("specialisation/routing", claim, against, found.routing, f"{what}, of G", False)]
    if found.token_routing is not None:
        learned = f"{what}, of the token router's shares"
        verdicts.append(
            _against_chance("specialisation/token_router", claim, against, found.token_routing, learned, True)
        )
    return verdicts


def _against_chance(name: str, claim: str, against: str, found: AgainstChance, what: str, checked: bool) -> Verdict:
    chance = found.chance
    outcome = HOLDS if found.value > chance.high else FAILS if found.value <= chance.value else UNKNOWN
    reason = (
        f"{what}, {found.samples} samples in {found.labels} clusters; by chance {chance.value:.3f} "
        f"({chance.low:.3f} to {chance.high:.3f}), above which it holds"
    )
    if not checked:
        reason += "; partly so by construction, since the intuition is in it, and left out of the check"
    return Verdict(name, claim, against, Interval.exact(found.value), "", outcome, reason, checked)


def _plain(name: str) -> str:
    return name.rsplit("/", 1)[-1].replace(":", "_")
