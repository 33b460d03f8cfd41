from __future__ import annotations

import numpy as np
import pytest

from trex_ds.data.datasets import PackedSet
from trex_ds.data.packing import WINDOW, plan_rows


def lognormal(count: int, longest: int, seed: int = 0) -> np.ndarray:
    lengths = np.random.default_rng(seed).lognormal(np.log(longest / 8), 0.7, count)
    return lengths.clip(1, longest).astype(np.int32)


@pytest.mark.parametrize("count", [1, 2, 100, 2 * WINDOW + 17])
def test_every_item_is_in_one_row_and_no_row_is_too_long(count):
    lengths = lognormal(count, 64)
    plan = plan_rows(lengths, 64, seed=0)
    assert sorted(plan.items.tolist()) == list(range(count))
    rows = [plan.row(i) for i in range(len(plan))]
    assert sum(map(len, rows)) == count
    totals = np.array([lengths[row].sum() for row in rows])
    assert totals.min() > 0
    assert totals.max() <= 64
    assert plan.fill_rate == pytest.approx(totals.mean() / 64)


def test_rows_are_nearly_full():
    assert plan_rows(lognormal(WINDOW, 256), 256, seed=0).fill_rate > 0.98


@pytest.mark.parametrize(("lengths", "rows"), [([3, 3, 3, 7, 7, 7], 3), ([6, 5, 5, 4], 2), ([6, 6, 6], 3), ([10], 1)])
def test_few_items_are_fitted_by_hand(lengths, rows):
    assert len(plan_rows(lengths, 10, seed=0)) == rows


def test_the_plan_follows_from_its_arguments():
    lengths = lognormal(500, 64)
    first, again, other = (plan_rows(lengths, 64, seed) for seed in (0, 0, 1))
    assert np.array_equal(first.items, again.items)
    assert np.array_equal(first.starts, again.starts)
    assert not np.array_equal(first.items, other.items)


def test_row_mates_come_from_anywhere():
    """Tasks lie one after another, so rows of neighbors would be rows of one task."""
    count = 8 * WINDOW
    plan = plan_rows(lognormal(count, 64), 64, seed=0)
    spreads = [np.ptp(row) for row in map(plan.row, range(len(plan))) if len(row) > 1]
    assert np.median(spreads) > count / 8


def test_memory_is_two_arrays():
    plan = plan_rows(lognormal(5000, 64), 64, seed=0)
    assert plan.items.nbytes + plan.starts.nbytes <= 8 * (2 * 5000 + 1)


@pytest.mark.parametrize(
    ("lengths", "message"), [([], "no items"), ([3, 11], "3 to 11 tokens.* 1 to 10"), ([0, 2], "0 to")]
)
def test_items_without_a_place_are_refused(lengths, message):
    with pytest.raises(ValueError, match=message):
        plan_rows(lengths, 10, seed=0)


def test_packed_set_gives_the_items_of_a_row():
    words = ["one", "three", "fifteen", "six", "two"]
    plan = plan_rows([len(word) for word in words], 8, seed=0)
    rows = PackedSet(words, plan)
    assert sorted(word for row in range(len(rows)) for word in rows[row]) == sorted(words)
    assert {"three", "one"} < {word for row in range(len(rows)) if len(rows[row]) == 2 for word in rows[row]}
    with pytest.raises(ValueError, match="plan is for 5 items, the dataset has 4"):
        PackedSet(words[:4], plan)


def test_a_plan_tells_how_full_it_is():
    assert str(plan_rows([4, 5, 3], 10, seed=0)) == "3 examples in 2 rows of 10 tokens, 1.5 a row, 60.0% full"
