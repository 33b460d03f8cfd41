"""Step time of one method against another: two engines alive, their steps in turn, ratios of neighbours."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tqdm import tqdm

from trex_ds.distributed import gather_objects, on_rank_zero, rank
from trex_ds.reporting.config import Timing
from trex_ds.reporting.engine import SteppedTrainer, give_memory_back, make_trainer, release
from trex_ds.reporting.intervals import Interval, of_median
from trex_ds.training.job import training_arguments
from trex_ds.training.memory import peak_bytes, reset_peak
from trex_ds.training.preparation import Prepared
from trex_ds.training.recipe import Recipe

LEAST_PAIRS = 6
"""The least of which the bootstrap's interval of a median leaves anything out."""


@dataclass(frozen=True)
class Speed:
    """What a method did in the steps of one comparison, all ranks together."""

    step_seconds: float
    """Median."""
    padded_tokens_per_second: float
    real_tokens_per_second: float
    supervised_tokens_per_second: float


@dataclass(frozen=True)
class Comparison:
    """Two methods, step by step in turn on the same batches."""

    method: str
    baseline: str
    ratios: list[float]
    """Of each pair: the method's seconds over the baseline's."""
    median: Interval
    lower_quartile: float
    upper_quartile: float
    method_speed: Speed
    baseline_speed: Speed

    @property
    def is_control(self) -> bool:
        """Whether it is a method against itself, which shows the noise."""
        return self.method == self.baseline


@dataclass(frozen=True)
class Throughput:
    """All comparisons, and what each method needs when it is alone."""

    deepspeed: str
    warm_up_steps: int
    comparisons: list[Comparison]
    peak_bytes: Mapping[str, int]
    """By method, of the rank that needs most: the peak of its engine's making and first steps, above what the
    process held before. Allocated by torch on a GPU, else resident."""


def order(pairs: int) -> list[tuple[int, int]]:
    """Which of two goes first and which second in each pair: A B B A A B ..., so that a drift meets both alike."""
    return [(0, 1) if pair % 2 == 0 else (1, 0) for pair in range(pairs)]


def measure(
    recipe: Recipe,
    timing: Timing,
    methods: Mapping[str, Any],
    comparisons: Sequence[tuple[str, str]],
    prepared: Prepared,
) -> Throughput:
    """Time the pairs (method, baseline) in one process group, under the recipe's DeepSpeed configuration; a collective.

    No more than two models are alive at a time. The one of a pair whose memory is not known yet is made first, and
    takes its warm-up steps alone.

    Args:
        recipe: the user's, with everything but the adapter.
        timing: how many steps and pairs.
        methods: adapter sections by name.
        comparisons: pairs of their names; a name against itself is the control.
        prepared: the recipe's data.
    """
    arguments = training_arguments(recipe)
    peaks: dict[str, int] = {}
    found = []
    for method, baseline in comparisons:
        pair = _Pair(recipe, timing, methods, prepared, arguments)
        names = (baseline, method) if method in peaks and baseline not in peaks else (method, baseline)
        for name in names:
            alone = pair.add(name)
            if alone is not None and name not in peaks:
                peaks[name] = alone
        found.append(pair.compare(method, baseline))
        pair.release()
    for name in {name for pair_ in comparisons for name in pair_} - set(peaks):
        pair = _Pair(recipe, timing, methods, prepared, arguments)
        peaks[name] = pair.add(name) or 0
        pair.release()
    return Throughput(recipe.training.deepspeed, timing.warm_up_steps, found, peaks)


class _Pair:
    """At most two trainers that take their steps on the same batches."""

    def __init__(self, recipe: Recipe, timing: Timing, methods: Mapping[str, Any], prepared: Prepared, arguments: Any):
        self._recipe, self._timing, self._methods = recipe, timing, methods
        self._prepared, self._arguments = prepared, arguments
        self._names: list[str] = []
        self._trainers: list[SteppedTrainer] = []

    def add(self, name: str) -> int | None:
        """Make a method's engine and warm it up; its peak in bytes if no other is alive."""
        give_memory_back()
        reset_peak()
        before = peak_bytes()
        steps = self._timing.warm_up_steps + self._timing.pairs
        adapter = self._methods[name]
        trainer = make_trainer(self._recipe, adapter, self._prepared, self._arguments, steps)
        self._names.append(name)
        self._trainers.append(trainer)
        for _ in range(self._timing.warm_up_steps):
            trainer.take_step(trainer.next_batches())
        peak = max(gather_objects(peak_bytes() - before))
        return peak if len(self._trainers) == 1 else None

    def compare(self, method: str, baseline: str) -> Comparison:
        """Time pairs of steps until there are enough of them, or time is up."""
        # The same name twice is the control: which of the two is called what does not matter.
        first = self._names.index(method)
        sides = (self._trainers[first], self._trainers[1 - first])
        seconds: tuple[list[float], list[float]] = ([], [])
        tokens = [0, 0, 0]
        ends = time.perf_counter() + 60 * self._timing.minutes
        turns = order(self._timing.pairs)
        bar = tqdm(turns, desc=f"{method} against {baseline}", unit=" pairs", disable=rank() != 0, mininterval=2.0)
        for number, turn in enumerate(bar):
            late = on_rank_zero(lambda: time.perf_counter() > ends)
            if late and number >= min(LEAST_PAIRS, self._timing.pairs):
                break
            batches = sides[0].next_batches()
            for side in turn:
                seconds[side].append(sides[side].take_step(batches))
            tokens = [a + b for a, b in zip(tokens, batches.tokens(), strict=True)]
        bar.close()
        ratios = [own / other for own, other in zip(*seconds, strict=True)]
        low, _, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
        return Comparison(
            *(method, baseline, ratios, of_median(ratios), low, high),
            *(_speed(own, tokens) for own in seconds),
        )

    def release(self) -> None:
        """Free both."""
        release(self._trainers)
        self._trainers.clear()


def _speed(seconds: Sequence[float], tokens: Sequence[int]) -> Speed:
    return Speed(statistics.median(seconds), *(count / sum(seconds) for count in tokens))
