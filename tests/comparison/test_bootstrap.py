"""The bootstrap against enumeration, against known differences, and where nothing differs."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.stats import norm as normal
from scipy.stats import t as student

from trex_ds.comparison.bootstrap import bootstrap, holm


def scores(generator: np.random.Generator, seeds: int, items: int, mean: float, seed_spread: float) -> np.ndarray:
    """Answers, right or wrong, of items of different difficulty under seeds of different luck: (seeds, items)."""
    ease = generator.normal(0, 1, items)
    luck = generator.normal(0, seed_spread, (seeds, 1))
    return (generator.uniform(size=(seeds, items)) < 1 / (1 + np.exp(-(mean + ease + luck)))).astype(float)


def test_resamples_of_a_tiny_case_are_those_of_its_enumeration():
    values = np.array([[0.1, 0.0], [0.0, -0.1]])
    means = [
        values[np.ix_(seeds, items)].mean()
        for seeds in itertools.product(range(2), repeat=2)
        for items in itertools.product(range(2), repeat=2)
    ]
    # Two variances of 1/2 each, both known with one degree of freedom and both halved by resampling two.
    widening = np.sqrt(2) * student.ppf(0.975, 2) / normal.ppf(0.975)
    found, _ = bootstrap({"task": values}, -1.0, resamples=40_000)
    assert found.value == 0.0
    assert found.p == 1.0
    assert (found.low, found.high) == pytest.approx((widening * min(means), widening * max(means)))


def test_many_items_of_one_seed_have_the_percentiles_of_their_resamples():
    # So many that Student's quantiles are the normal distribution's: the share of resamples beyond 0 is normal, too.
    values = np.random.default_rng(4).normal(0.1, 1.0, (1, 400))
    found, _ = bootstrap({"task": values}, -1.0, resamples=40_000)
    error = values.std(ddof=1) / 20
    assert found.p == pytest.approx(2 * normal.sf(values.mean() / error), rel=0.15)
    assert found.low == pytest.approx(values.mean() - 1.966 * error, abs=0.06 * error)


def test_p_is_the_level_at_which_the_interval_ends_at_zero(monkeypatch):
    values = {"task": np.random.default_rng(5).normal(0.3, 1.0, (3, 60))}
    found, _ = bootstrap(values, -1.0)
    assert 0 < found.p < 1
    monkeypatch.setattr("trex_ds.comparison.bootstrap.CONFIDENCE", 1 - found.p)
    at_p, _ = bootstrap(values, -1.0)
    assert min(abs(at_p.low), abs(at_p.high)) == pytest.approx(0.0, abs=1e-3)


@pytest.mark.parametrize("tasks", range(1, 21))
def test_a_mean_that_all_resamples_have_lies_within_its_interval(tasks):
    found, _ = bootstrap({str(task): np.ones((3, 5)) for task in range(tasks)}, 0.0, resamples=100)
    assert found.low <= found.value <= found.high <= 1.0
    assert found.high - found.low < 1e-12


def test_mean_weighs_tasks_equally_whatever_their_items():
    found, tasks = bootstrap({"a": np.ones((2, 3)), "b": np.zeros((2, 50))}, 0.0, resamples=100)
    assert found.value == 0.5
    assert tasks["a"].value == 1.0
    assert (tasks["b"].low, tasks["b"].high) == (0.0, 0.0)


def test_interval_covers_a_known_difference_about_as_often_as_it_says():
    generator = np.random.default_rng(0)
    covered = 0
    trials = 300
    for trial in range(trials):
        ease = {task: generator.normal(0.2, 0.3, size) for task, size in (("a", 40), ("b", 80))}
        luck = generator.normal(0, 0.05, (5, 1))
        values = {t: e + luck + generator.normal(0, 0.1, (5, len(e))) for t, e in ease.items()}
        found, _ = bootstrap(values, -1.0, resamples=400, seed=trial)
        covered += found.low <= 0.2 <= found.high
    assert 0.90 <= covered / trials <= 0.99


@pytest.mark.parametrize(("seeds", "seed_spread"), [(2, 1.0), (3, 0.2), (3, 1.0)])
def test_false_claims_are_about_as_rare_as_the_level_says(seeds, seed_spread):
    generator = np.random.default_rng(1)
    claims = 0
    trials = 200
    for trial in range(trials):
        both = [scores(generator, seeds, 100, 0.0, seed_spread) for _ in range(2)]
        found, _ = bootstrap({"task": both[0] - both[1]}, -1.0, resamples=400, seed=trial)
        claims += found.p < 0.05
    # Of 200 with a chance of 5% more than 18 are rarer than one in a hundred.
    assert claims / trials <= 0.09


def test_a_plain_difference_is_seen_with_three_seeds():
    generator = np.random.default_rng(6)
    seen = 0
    for trial in range(40):
        better, worse = (scores(generator, 3, 300, mean, 0.1) for mean in (1.5, 0.0))
        found, _ = bootstrap({"task": better - worse}, -1.0, resamples=400, seed=trial)
        seen += found.p < 0.05
    assert seen >= 36


def test_one_answer_under_one_seed_tells_nothing():
    found, _ = bootstrap({"a": np.ones((1, 1)), "b": np.ones((1, 1))}, -1.0)
    assert (found.value, found.low, found.high, found.p) == (1.0, -1.0, 1.0, 1.0)


def test_pairing_sees_a_difference_that_independent_items_hide():
    generator = np.random.default_rng(2)
    mine = scores(generator, 3, 200, 0.0, 0.0)[:1].repeat(3, axis=0)
    theirs = mine.copy()
    theirs[:, np.flatnonzero(mine[0])[:12]] = 0  # 12 of 200 items lost under every seed
    paired, _ = bootstrap({"task": mine - theirs}, -1.0)
    shuffled = generator.permutation(theirs.T).T
    unpaired, _ = bootstrap({"task": mine - shuffled}, -1.0)
    assert paired.value == pytest.approx(unpaired.value) == pytest.approx(0.06)
    assert paired.p < 0.01 < unpaired.p
    assert paired.high - paired.low < (unpaired.high - unpaired.low) / 2


def test_seeds_that_differ_widen_the_interval():
    steady = np.tile(np.array([[1.0, 1.0, 0.0, 0.0]]), (3, 25))
    moving = np.stack([np.ones(100), np.full(100, 0.5), np.zeros(100)])
    narrow, _ = bootstrap({"task": steady}, -1.0)
    wide, _ = bootstrap({"task": moving}, -1.0)
    assert narrow.value == wide.value == 0.5
    assert wide.high - wide.low > 3 * (narrow.high - narrow.low)


def test_no_difference_at_all_is_never_significant():
    found, tasks = bootstrap({"a": np.zeros((3, 10)), "b": np.zeros((3, 20))}, -1.0)
    for interval in (found, *tasks.values()):
        assert (interval.value, interval.low, interval.high, interval.p) == (0.0, 0.0, 0.0, 1.0)


def test_intervals_stay_within_what_is_possible():
    values = {"task": np.array([[1.0, 1.0, 0.0], [1.0, 1.0, 1.0]])}
    accuracy, _ = bootstrap(values, 0.0)
    assert (accuracy.low, accuracy.high) == (0.0, 1.0)
    difference, _ = bootstrap(values, -1.0)
    assert -1.0 < difference.low < 0.0


def test_opposite_tasks_that_cancel_are_no_difference():
    found, _ = bootstrap({"a": np.full((1, 10), 0.1), "b": np.full((1, 10), -0.1)}, -1.0)
    assert found.p == 1.0


def test_the_same_seed_gives_the_same_interval():
    values = {"task": scores(np.random.default_rng(3), 2, 30, 0.5, 0.1)}
    assert bootstrap(values, -1.0) == bootstrap(values, -1.0)
    assert bootstrap(values, -1.0) != bootstrap(values, -1.0, seed=1)


@pytest.mark.parametrize(
    "values",
    [{}, {"a": np.zeros((2, 0))}, {"a": np.zeros((2, 3)), "b": np.zeros((3, 3))}],
    ids=["none", "empty", "seeds"],
)
def test_what_cannot_be_resampled_is_refused(values):
    with pytest.raises(ValueError, match="with the same seeds"):
        bootstrap(values, -1.0)


def test_holm_corrects_and_keeps_the_order():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_tasks_that_were_not_trained_on_are_left_out_of_the_mean():
    generator = np.random.default_rng(0)
    values = {name: generator.integers(0, 2, (3, 20)).astype(float) for name in ("a", "b", "unseen")}
    mean, tasks = bootstrap(values, 0.0, untrained=["unseen"])
    assert mean.value == pytest.approx((values["a"].mean() + values["b"].mean()) / 2)
    assert tasks.keys() == values.keys()
    alone, _ = bootstrap({name: values[name] for name in ("a", "b")}, 0.0)
    assert mean == alone
    # An interval of another value, where nothing else is there.
    only, _ = bootstrap({"unseen": values["unseen"]}, 0.0, untrained=["unseen"])
    assert only.value == pytest.approx(values["unseen"].mean())
