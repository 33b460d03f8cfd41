"""The paired bootstrap over evaluation items and seeds, and Holm's correction."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri, stdtrit

from trex_ds.intervals import CONFIDENCE, Interval

RESAMPLES = 10_000


@dataclass(frozen=True)
class IntervalWithP(Interval):
    """A mean with its interval, and the two-sided p-value of its being 0: where the interval ends at 0."""

    p: float


def bootstrap(
    values: Mapping[str, np.ndarray],
    least: float,
    resamples: int = RESAMPLES,
    seed: int = 0,
    untrained: Collection[str] = (),
) -> tuple[IntervalWithP, dict[str, IntervalWithP]]:
    """The unweighted mean over the trained tasks, and each task's mean, with bootstrap intervals.

    Each resample draws seeds (runs) with replacement, the same for all tasks, and within each task items with
    replacement, the same for all seeds. For the difference of two methods give the differences of their scores,
    item by item and seed by seed: both methods then have the same items and seeds in each resample (paired). With
    one seed only items are drawn.

    Resamples of a few seeds scatter less than the seeds do: their variance is smaller by (n - 1) / n, and its own
    estimate is uncertain. So the percentiles' distances from the mean are widened by both, the latter as Student's
    quantiles are wider than the normal distribution's, with the degrees of freedom of Satterthwaite (1946).

    Items with the same values under all seeds are interchangeable, so not items are drawn but how many there are of
    each kind: a multinomial of few kinds, where scores are 0 or 1.

    Args:
        values: of each task, (seeds, items), none above 1; all tasks have the same seeds.
        least: what a value can be at least, 0 for scores and -1 for differences; no interval goes beyond, or above 1.
        resamples: how many.
        seed: of the draws.
        untrained: tasks that the mean leaves out, unless there are no others.

    Raises:
        ValueError: no tasks, no items, or tasks with different numbers of seeds.
    """
    counts = {array.shape[0] for array in values.values()}
    if len(counts) != 1 or not all(array.ndim == 2 and array.size for array in values.values()):
        raise ValueError("each task needs an array (seeds, items) that is not empty, with the same seeds")
    (seeds,) = counts
    generator = np.random.default_rng(seed)
    drawn_seeds = generator.multinomial(seeds, np.full(seeds, 1 / seeds), size=resamples) / seeds
    tasks: dict[str, IntervalWithP] = {}
    counted = {name: array for name, array in values.items() if name not in untrained} or values
    total = np.zeros(resamples)
    for name, array in values.items():
        items = array.shape[1]
        kinds, sizes = np.unique(array, axis=1, return_counts=True)
        drawn_items = generator.multinomial(items, sizes / items, size=resamples) / items
        means = ((drawn_seeds @ kinds) * drawn_items).sum(axis=1)
        tasks[name] = _interval(float(array.mean()), means, _Spread.of([array]), least)
        if name in counted:
            total += means / len(counted)
    value = float(np.mean([tasks[name].value for name in counted]))
    return _interval(value, total, _Spread.of(list(counted.values())), least), tasks


@dataclass(frozen=True)
class _Spread:
    """How much the variance of resampled means falls short, and how well it is known."""

    ratio: float
    """Standard deviation that is to be expected of the mean, over that of its resamples."""
    degrees_of_freedom: float

    @classmethod
    def of(cls, tasks: Sequence[np.ndarray]) -> _Spread:
        """Spread of the mean over tasks (seeds, items): a variance over seeds and one over each task's items."""
        over_seeds = np.mean([array.mean(axis=1) for array in tasks], axis=0)
        samples = [(over_seeds, 1.0), *((array.mean(axis=0), len(tasks)) for array in tasks)]
        known = [(sample, weight) for sample, weight in samples if len(sample) > 1]
        if not known:
            return cls(1.0, 0.0)
        resampled = np.array([sample.var() / len(sample) / weight**2 for sample, weight in known])
        sizes = np.array([len(sample) for sample, _ in known])
        expected = resampled * sizes / (sizes - 1)
        # Sums of rounded shares: what is 0 but for rounding counts as 0.
        if expected.sum() < 1e-24:
            return cls(1.0, math.inf)
        freedom = expected.sum() ** 2 / (expected**2 / (sizes - 1)).sum()
        return cls(float(np.sqrt(expected.sum() / resampled.sum())), float(freedom))

    def widening(self, tail: float) -> float:
        """Factor on a percentile's distance from the mean, at this tail probability."""
        return float(self.ratio * stdtrit(self.degrees_of_freedom, tail) / ndtri(tail))


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values corrected for their number (Holm 1979): any claim of p < 0.05 is then false with a chance of 5%."""
    order = np.argsort(p_values, kind="stable")
    corrected = [0.0] * len(p_values)
    largest = 0.0
    for position, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - position) * p_values[index]))
        corrected[index] = largest
    return corrected


def _interval(value: float, means: np.ndarray, spread: _Spread, least: float) -> IntervalWithP:
    if spread.degrees_of_freedom == 0:  # one answer under one seed tells nothing of others
        return IntervalWithP(value, least, 1.0, 1.0)
    # Sums of rounded shares: what is 0 but for rounding counts as 0.
    distances = np.sort(np.where(np.abs(means) < 1e-12, 0.0, means) - value)

    def bounds(tail: float) -> tuple[float, float]:
        low, high = value + spread.widening(tail) * np.quantile(distances, [tail, 1 - tail])
        # Where all resamples are alike, rounding would leave the value itself outside.
        return max(least, min(value, float(low))), min(1.0, max(value, float(high)))

    def excludes_zero(tail: float) -> bool:
        low, high = bounds(tail)
        return low > 1e-12 or high < -1e-12

    # The least tail whose interval leaves out 0, by bisection; none is less than that of one resample.
    below, tail = 1 / (len(means) + 1), 0.4999
    if excludes_zero(below):
        tail = below
    elif not excludes_zero(tail):
        tail = 0.5
    else:
        for _ in range(20):
            middle = (below + tail) / 2
            below, tail = (below, middle) if excludes_zero(middle) else (middle, tail)
    return IntervalWithP(value, *bounds((1 - CONFIDENCE) / 2), 2 * tail)
