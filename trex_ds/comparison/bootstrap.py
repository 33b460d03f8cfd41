"""The paired bootstrap over evaluation items and seeds, and Holm's correction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 10_000
LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """A mean with its percentile interval at `LEVEL`, and the two-sided p-value of its being 0."""

    value: float
    low: float
    high: float
    p: float


def bootstrap(
    values: Mapping[str, np.ndarray], resamples: int = RESAMPLES, seed: int = 0
) -> tuple[Interval, dict[str, Interval]]:
    """The unweighted mean over tasks, and each task's mean, with bootstrap intervals.

    Each resample draws seeds (runs) with replacement, the same for all tasks, and within each task items with
    replacement, the same for all seeds. For the difference of two methods give the differences of their scores,
    item by item and seed by seed: both methods then have the same items and seeds in each resample (paired). With
    one seed only items are drawn.

    Items with the same values under all seeds are interchangeable, so not items are drawn but how many there are of
    each kind: a multinomial of few kinds, where scores are 0 or 1.

    Args:
        values: of each task, (seeds, items); all tasks have the same seeds.
        resamples: how many.
        seed: of the draws.

    Raises:
        ValueError: no tasks, no items, or tasks with different numbers of seeds.
    """
    counts = {array.shape[0] for array in values.values()}
    if len(counts) != 1 or not all(array.ndim == 2 and array.size for array in values.values()):
        raise ValueError("each task needs an array (seeds, items) that is not empty, with the same seeds")
    (seeds,) = counts
    generator = np.random.default_rng(seed)
    drawn_seeds = generator.multinomial(seeds, np.full(seeds, 1 / seeds), size=resamples) / seeds
    tasks: dict[str, Interval] = {}
    total = np.zeros(resamples)
    for name, array in values.items():
        items = array.shape[1]
        kinds, sizes = np.unique(array, axis=1, return_counts=True)
        drawn_items = generator.multinomial(items, sizes / items, size=resamples) / items
        means = ((drawn_seeds @ kinds) * drawn_items).sum(axis=1)
        tasks[name] = _interval(float(array.mean()), means)
        total += means / len(values)
    value = float(np.mean([task.value for task in tasks.values()]))
    return _interval(value, total), tasks


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values corrected for their number (Holm 1979): any claim of p < 0.05 is then false with a chance of 5%."""
    order = np.argsort(p_values, kind="stable")
    corrected = [0.0] * len(p_values)
    largest = 0.0
    for position, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - position) * p_values[index]))
        corrected[index] = largest
    return corrected


def _interval(value: float, means: np.ndarray) -> Interval:
    tail = (1 - LEVEL) / 2
    # Sums of rounded shares: what is 0 but for rounding counts as 0.
    means = np.where(np.abs(means) < 1e-12, 0.0, means)
    low, high = np.quantile(means, [tail, 1 - tail])
    # The sample itself counts as one of the resamples, so that p is never 0.
    side = min(int((means <= 0).sum()), int((means >= 0).sum()))
    p = min(1.0, 2 * (side + 1) / (len(means) + 1))
    return Interval(value, float(low), float(high), p)
