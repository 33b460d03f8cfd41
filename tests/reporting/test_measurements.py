"""Intervals, the order of steps, statistics of labels, and the experiment on target updates in small."""

from __future__ import annotations

import numpy as np
import pytest

from trex_ds.intervals import mean_by_t, of_median
from trex_ds.reporting import approximation, routing
from trex_ds.reporting.throughput import order


def test_steps_alternate_so_that_a_drift_cancels():
    turns = order(5)
    assert turns == [(0, 1), (1, 0), (0, 1), (1, 0), (0, 1)]
    # A clock that runs slower and slower: each of the two is first as often as the other, in any even number.
    times = {0: 0, 1: 0}
    for number, side in enumerate(side for turn in order(4) for side in turn):
        times[side] += number
    assert times[0] == times[1]


def test_interval_of_a_median_holds_it_and_ignores_an_outlier():
    found = of_median([1.0, 1.1, 1.05, 1.02, 1.08, 1.04, 1.06, 1.03, 40.0])
    assert found.value == pytest.approx(1.05)
    assert 1.0 < found.low < found.value < found.high < 2.0
    with pytest.raises(ValueError, match="no values"):
        of_median([])


def test_students_interval():
    found = mean_by_t([1.0, 2.0, 3.0])
    assert found.value == 2.0
    assert found.high - 2.0 == pytest.approx(4.302653 / 3**0.5)


def test_variance_between_clusters():
    clusters = np.array([0, 0, 1, 1])
    apart = np.array([[0.0, 5.0], [0.0, 5.0], [1.0, 7.0], [1.0, 7.0]])
    assert routing.between_clusters(apart, clusters) == pytest.approx(1.0)
    assert routing.between_clusters(apart, np.array([0, 1, 0, 1])) == pytest.approx(0.0)
    assert routing.between_clusters(np.ones((4, 2)), clusters) == 0.0


def test_planted_clusters_are_above_chance_and_noise_is_not():
    generator = np.random.default_rng(0)
    clusters = np.repeat(np.arange(4), 10)
    noise = generator.normal(size=(40, 6))
    planted = routing._between(noise + 2.0 * clusters[:, None], clusters, seed=0)
    assert planted.value > planted.chance.high
    assert (planted.samples, planted.labels) == (40, 4)
    assert routing._between(noise, clusters, seed=0).value < planted.chance.high + 0.1


def test_errors_of_target_updates_fall_and_repeat():
    found = approximation.measure(sizes=((1, 1), (4, 4)), seeds=2, steps=40)
    assert found == approximation.measure(sizes=((1, 1), (4, 4)), seeds=2, steps=40)
    assert np.mean(found.learned[1]) < np.mean(found.learned[0]) < 1.0
    assert max(found.free[1]) < min(found.free[0])


def test_free_routing_is_exact_where_the_experts_span_everything():
    targets = approximation._Targets(0)
    assert approximation._free_error(targets.updates, approximation.WIDTH, approximation.WIDTH) < 1e-12
