"""Values with an interval, and the bootstrap that gives it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

CONFIDENCE = 0.95
"""Confidence level of every interval."""
_RESAMPLES = 10_000
_SEED = 0


@dataclass(frozen=True)
class Interval:
    """A measured value and the bounds of its 95% interval; an exact value has both bounds equal to it."""

    value: float
    low: float
    high: float

    @classmethod
    def exact(cls, value: float) -> Interval:
        """A value that was counted, not sampled."""
        return cls(value, value, value)


def of_median(values: Sequence[float]) -> Interval:
    """The median of a sample, by the percentile bootstrap over its members.

    Raises:
        ValueError: of no values.
    """
    if not len(values):
        raise ValueError("there is no median of no values")
    sample: np.ndarray = np.asarray(values, np.float64)
    drawn = sample[np.random.default_rng(_SEED).integers(len(sample), size=(_RESAMPLES, len(sample)))]
    return percentile_interval(float(np.median(sample)), np.median(drawn, axis=1))


def percentile_interval(value: float, resampled: Sequence[float] | np.ndarray) -> Interval:
    """`value` between the percentiles of what resampling gave."""
    tail = 50 * (1 - CONFIDENCE)
    low, high = np.percentile(resampled, [tail, 100 - tail])
    return Interval(value, float(low), float(high))


def mean_by_t(values: Sequence[float] | np.ndarray) -> Interval:
    """The mean of a few independent values, with Student's interval: a bootstrap of so few would be too narrow."""
    from scipy.stats import t

    sample: np.ndarray = np.asarray(values, np.float64)
    half = float(t.ppf(0.5 + CONFIDENCE / 2, len(sample) - 1) * sample.std(ddof=1) / np.sqrt(len(sample)))
    mean = float(sample.mean())
    return Interval(mean, mean - half, mean + half)
