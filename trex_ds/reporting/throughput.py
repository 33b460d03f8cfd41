"""Step time of one method against another: two engines alive, their steps in turn, ratios of neighbors."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trex_ds.distributed import gather_objects, on_rank_zero, rank
from trex_ds.intervals import Interval, of_median
from trex_ds.modeling.held import peak_bytes, reset_peak
from trex_ds.progress import Progress
from trex_ds.reporting.config import Timing
from trex_ds.reporting.engine import SteppedTrainer, give_memory_back, make_trainer, release
from trex_ds.training.job import training_arguments
from trex_ds.training.prepared import Prepared
from trex_ds.training.recipe import Recipe

LEAST_PAIRS = 6
"""Fewest pairs for which the bootstrap's interval of a median excludes any."""


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
    """Ratio of each pair: the method's seconds over the baseline's."""
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
    """Peak by method, of the rank that needs most: the peak of a step while no other engine is alive, above what the
    process held before there was any. Allocated by torch on a GPU, else resident."""


def order(pairs: int) -> list[tuple[int, int]]:
    """Order of the two in each pair: A B B A A B ..., so that a drift meets both alike."""
    return [(0, 1) if pair % 2 == 0 else (1, 0) for pair in range(pairs)]


def measure(
    recipe: Recipe,
    timing: Timing,
    methods: Mapping[str, Any],
    comparisons: Sequence[tuple[str, str]],
    prepared: Prepared,
) -> Throughput:
    """Time the pairs (method, baseline) in one process group, under the recipe's DeepSpeed configuration; a collective.

    No more than two models are alive at a time; one that the next comparison needs too stays, warm.

    Args:
        recipe: the user's, with everything but the adapter.
        timing: how many steps and pairs.
        methods: adapter sections by name.
        comparisons: pairs of their names; a name against itself is the control.
        prepared: the recipe's data.
    """
    bench = _Bench(recipe, timing, methods, prepared)
    found = []
    for pair in comparisons:
        bench.bring(pair)
        found.append(bench.compare(*pair))
    bench.bring(())
    return Throughput(recipe.training.deepspeed, timing.warm_up_steps, found, bench.peaks)


class _Bench:
    """Bench of at most two engines, which take their steps on the same batches."""

    def __init__(self, recipe: Recipe, timing: Timing, methods: Mapping[str, Any], prepared: Prepared):
        self._recipe, self._timing, self._methods, self._prepared = recipe, timing, methods, prepared
        self._arguments = training_arguments(recipe)
        self._alive: list[tuple[str, SteppedTrainer]] = []
        self.peaks: dict[str, int] = {}
        give_memory_back()
        reset_peak()
        self._before = peak_bytes()

    def bring(self, wanted: Sequence[str]) -> None:
        """Keep the engines of `wanted` alive and no others; an engine's memory is measured while it is the only one."""
        missing = list(wanted)
        for name, trainer in list(self._alive):
            if name in missing:
                missing.remove(name)
            elif len(self._alive) == 2:
                self._release(name, trainer)
                self._weigh()
        for name in missing:
            if len(self._alive) == 2 or (self._alive and self._alive[0][0] not in wanted):
                self._release(*self._alive[0])
            self._alive.append((name, self._warm(name)))
            self._weigh()
        if not wanted:
            for name, trainer in list(self._alive):
                self._release(name, trainer)
                self._weigh()

    def compare(self, method: str, baseline: str) -> Comparison:
        """Time pairs of steps until there are enough of them, or time is up."""
        names = [name for name, _ in self._alive]
        # The same name twice is the control: which of the two is called what does not matter.
        first = names.index(method)
        sides = (self._alive[first][1], self._alive[1 - first][1])
        seconds: tuple[list[float], list[float]] = ([], [])
        tokens = [0, 0, 0]
        ends = time.perf_counter() + 60 * self._timing.minutes
        turns = order(self._timing.pairs)
        bar = Progress(turns, desc=f"{method} against {baseline}", unit=" pairs", shown=rank() == 0)
        for number, turn in enumerate(bar):
            late = on_rank_zero(lambda: time.perf_counter() > ends)
            if late and number >= LEAST_PAIRS:
                break
            batches = sides[0].next_batches()
            for side in turn:
                seconds[side].append(sides[side].take_step(batches))
            tokens = [a + b for a, b in zip(tokens, batches.tokens(), strict=True)]
        bar.close()
        ratios = [own / other for own, other in zip(*seconds, strict=True)]
        low, _, high = statistics.quantiles(ratios, n=4)
        return Comparison(
            *(method, baseline, ratios, of_median(ratios), low, high),
            *(_speed(own, tokens) for own in seconds),
        )

    def _warm(self, name: str) -> SteppedTrainer:
        adapter, steps = self._methods[name], self._timing.warm_up_steps
        schedule = steps + self._timing.pairs
        trainer = make_trainer(self._recipe, adapter, self._prepared, self._arguments, schedule)
        for _ in Progress(range(steps), desc=f"{name}, warm-up", unit=" steps", shown=rank() == 0):
            trainer.take_step(trainer.next_batches())
        return trainer

    def _weigh(self) -> None:
        """Measure the memory of the only engine alive, unless that has been done."""
        if len(self._alive) != 1 or self._alive[0][0] in self.peaks:
            return
        name, trainer = self._alive[0]
        give_memory_back()
        reset_peak()
        trainer.take_step(trainer.next_batches())
        self.peaks[name] = max(gather_objects(peak_bytes() - self._before))

    def _release(self, name: str, trainer: SteppedTrainer) -> None:
        self._alive = [(other, alive) for other, alive in self._alive if alive is not trainer]
        release(trainer)


def _speed(seconds: Sequence[float], tokens: Sequence[int]) -> Speed:
    return Speed(statistics.median(seconds), *(count / sum(seconds) for count in tokens))
