"""The paper's claims and what the measurements say of them: a pure function, without any measuring."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from trex_ds.adapters.counts import trained
from trex_ds.intervals import Interval
from trex_ds.methods.config import METHODS
from trex_ds.reporting.approximation import Approximation
from trex_ds.reporting.routing import AgainstChance, Specialization
from trex_ds.reporting.throughput import Comparison, Throughput

Outcome = Literal["holds", "does not hold", "cannot be told"]
HOLDS: Outcome = "holds"
FAILS: Outcome = "does not hold"
UNKNOWN: Outcome = "cannot be told"

LEAST_SAVED = 30.0
"""Percent of the parameters, the lower end of the claimed 30-40%."""
MOST_TIME = 1.1
"""Claimed factor over the time of LoRA's step."""
BIASED = 0.05
"""Distance from 1 beyond which the control's whole interval makes step times unbelievable."""
BY_CHANCE = 0.05
"""Largest one-sided probability by chance at which a claim holds."""
LEAST_SEEDS = 3
"""Fewest seeds of a comparison for a verdict on accuracy."""
_BEST_LORA = "the best LoRA-based method"


@dataclass(frozen=True)
class Verdict:
    """One claim against one thing that it is measured against."""

    name: str
    """Name for metrics: no spaces."""
    claim: str
    against: str
    measured: Interval | None
    unit: str
    """Unit: %, x, points or nothing."""
    outcome: Outcome
    reason: str
    """How it was decided, or what would decide it."""
    checked: bool = True
    """Whether `--check` fails if it does not hold."""


def failed(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """Verdicts that make `--check` fail: the claim counts, was decided, and does not hold."""
    return [verdict for verdict in verdicts if verdict.checked and verdict.outcome == FAILS]


def parameters(model: str, counts: Mapping[str, Mapping[str, int]], claimed: Sequence[str]) -> list[Verdict]:
    """Judge whether trainable parameters are fewer than those of each of `claimed`, and of LoRA r=16, not claimed.

    Args:
        model: the base model's name.
        counts: of each method by role, "trex" among them.
        claimed: what the paper compares with: LoRA with r = I*J, and 8 experts with r = 4.
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
    """Judge whether a step takes 1.1 times that of each LoRA that was timed."""
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


def accuracy(
    comparison: Mapping[str, Any] | None, margin: float, model: Mapping[str, Any], adapter: Mapping[str, Any]
) -> list[Verdict]:
    """Judge whether it is more accurate than the best LoRA-based method, on trained and on other tasks.

    Args:
        comparison: content of a comparison.json; None: there is none.
        margin: points by which it must be better.
        model: the model section that the report is about; that of the comparison must be the same.
        adapter: the adapter section that the report is about; that of the comparison's reference must be the same.
    """
    untrained = list((comparison or {}).get("untrained_tasks", []))
    claims = (
        ("accuracy/mean", "up to +1.78 points mean accuracy over LoRA-based methods", None),
        ("accuracy/out_of_distribution", "better on out-of-distribution tasks", untrained),
    )
    if comparison is None:
        missing = (
            "no comparison: run trex-ds compare with trex and LoRA-based methods, and give its result as "
            "--comparison DIR/comparison.json"
        )
    else:
        missing = _lacks(comparison, model, adapter)
    found = []
    for name, claim, tasks in claims:
        if comparison is None or missing:
            found.append(Verdict(name, claim, _BEST_LORA, None, "points", UNKNOWN, missing))
        else:
            found.append(_accuracy_of(comparison, margin, name, claim, tasks))
    return found


def _lora_based(comparison: Mapping[str, Any]) -> list[str]:
    return [m["name"] for m in comparison["methods"] if METHODS[m["adapter"].get("method", "trex")].lora_based]


def _lacks(comparison: Mapping[str, Any], model: Mapping[str, Any], adapter: Mapping[str, Any]) -> str:
    """Reasons why a comparison cannot decide; empty if it can."""
    reference = comparison["reference"]
    methods = {method["name"]: method for method in comparison["methods"]}
    for what, own, mine in (
        ("model", comparison["recipe"]["model"], model),
        (f"methods.{reference}", methods[reference]["adapter"], adapter),
    ):
        if differing := [name for name in dict.fromkeys([*own, *mine]) if own.get(name) != mine.get(name)]:
            return (
                f"the comparison's {what} differs from the recipe's {'model' if what == 'model' else 'adapter'} in "
                f"{', '.join(differing)}; make them the same"
            )
    if comparison["recipe"]["tuning"] is None:
        return "all methods of the comparison have one learning rate, which may suit some: set tuning in it"
    for name in (reference, *_lora_based(comparison)):
        undone = [run["seed"] for run in methods[name]["runs"] if run["status"] != "finished"]
        if undone or not methods[name]["runs"]:
            which = f"seeds {', '.join(map(str, undone))} of {name}" if undone else name
            return f"{which} have not finished in the comparison; run it again with --retry_failed true"
        if methods[name]["learning_rate"] in [edge(map(float, methods[name]["tuning"])) for edge in (min, max)]:
            return f"{name} has a learning rate at the edge of those offered: widen tuning.learning_rates"
        if len(methods[name]["runs"]) < LEAST_SEEDS:
            return f"the comparison has {len(methods[name]['runs'])} seeds, and takes {LEAST_SEEDS} to tell"
        if name != reference and _against(comparison, name) is None:
            return f"the comparison has no difference of {reference} and {name}: put {name} among its baselines"
    return ""


def _against(comparison: Mapping[str, Any], other: str) -> dict[str, Any] | None:
    """Differences of the reference to another method, of the mean and by task, whichever of them is the baseline."""
    for pair in comparison["pairs"]:
        turned = (pair["method"], pair["baseline"]) == (other, comparison["reference"])
        if turned or (pair["method"], pair["baseline"]) == (comparison["reference"], other):
            turn = _turned if turned else dict
            tasks = {task: turn(interval) for task, interval in pair["tasks"].items()}
            return {"baseline": other, "difference": turn(pair["difference"]), "tasks": tasks}
    return None


def _turned(interval: Mapping[str, float]) -> dict[str, float]:
    return {"value": -interval["value"], "low": -interval["high"], "high": -interval["low"]}


def _accuracy_of(
    comparison: Mapping[str, Any], margin: float, name: str, claim: str, tasks: list[str] | None
) -> Verdict:
    pairs = [pair for pair in (_against(comparison, other) for other in _lora_based(comparison)) if pair]
    if tasks is not None:
        tasks = [task for task in tasks if all(task in pair["tasks"] for pair in pairs)]
        if not tasks:
            reason = "no task of the comparison has train_examples: 0; add some, as BBH's, to its recipe"
            return Verdict(name, claim, _BEST_LORA, None, "points", UNKNOWN, reason)
    # Better than the best of them is better than each: the pair that comes nearest to denying it decides.
    gains = [(_gain(pair, tasks), pair) for pair in pairs]
    order = (FAILS, UNKNOWN, HOLDS)
    measured, pair = min(gains, key=lambda found: (order.index(more_than(found[0], margin)), found[0].low))
    seeds = len(comparison["recipe"]["seeds"])
    reason = f"{seeds} seeds, paired bootstrap, the least certain of {len(pairs)} LoRA-based methods"
    if tasks is not None:
        reason += f"; tasks {', '.join(tasks)}"
    reason += f"; more than {margin:g} points with all of the interval, against each of them, holds"
    against = f"{pair['baseline']} in the comparison"
    return Verdict(name, claim, against, measured, "points", more_than(measured, margin), reason)


def _gain(pair: Mapping[str, Any], tasks: list[str] | None) -> Interval:
    """Convert to points; for some tasks alone, their errors are treated as equal, since they share the seeds."""
    parts = [pair["difference"]] if tasks is None else [pair["tasks"][task] for task in tasks]
    return Interval(*(100 * float(np.mean([part[key] for part in parts])) for key in ("value", "low", "high")))


def approximation(found: Approximation) -> Verdict:
    """Judge whether the error falls with I*J: no significant rise, and significantly lower at the end."""
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


def clusters(found: AgainstChance | str) -> Verdict:
    """Judge whether clusters follow tasks; `found` may say why it was not measured."""
    claim, against = "semantic clusters are meaningful", "tasks of the training examples, permuted"
    if isinstance(found, str):
        return Verdict("clusters", claim, against, None, "", UNKNOWN, found)
    return _against_chance("clusters", claim, against, found, "adjusted mutual information", True)


def specialized(found: Specialization | str) -> list[Verdict]:
    """Judge whether experts specialize by cluster; `found` may say why it was not measured."""
    claim, against = "experts specialize by cluster", "token routers of random weights of the same size"
    if isinstance(found, str):
        return [Verdict("specialization/token_router", claim, against, None, "%", UNKNOWN, found)]
    what = "share of the variance over prompts that lies between clusters"
    permuted = "permuted clusters of the evaluation prompts"
    verdicts = [_against_chance("specialization/routing", claim, permuted, found.routing, f"{what}, of G", False)]
    if found.token_routing is not None:
        name, learned = "specialization/token_router", f"{what}, of the token router's shares"
        if found.token_routing.value == 0:
            reason = "the token router gives all prompts the same: it has learned nothing yet"
            verdicts.append(Verdict(name, claim, against, None, "", UNKNOWN, reason))
        else:
            verdicts.append(_against_chance(name, claim, against, found.token_routing, learned, True))
    return verdicts


def _against_chance(name: str, claim: str, against: str, found: AgainstChance, what: str, checked: bool) -> Verdict:
    chance = found.chance
    outcome = HOLDS if found.p <= BY_CHANCE else FAILS if found.value <= chance.value else UNKNOWN
    reason = (
        f"{what}, {found.samples} samples in {found.labels} clusters; by chance {chance.value:.3f} "
        f"({chance.low:.3f} to {chance.high:.3f}), p = {found.p:.3f}; at most {BY_CHANCE:g} holds"
    )
    if not checked:
        reason += "; partly so by construction, since the intuition is in it, and left out of the check"
    return Verdict(name, claim, against, Interval.exact(found.value), "", outcome, reason, checked)


def _plain(name: str) -> str:
    return name.rsplit("/", 1)[-1].replace(":", "_")
