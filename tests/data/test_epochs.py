from __future__ import annotations

import numpy as np
import pytest

from trex_ds.data.epochs import epoch_counts, epoch_indices, held_out_positions, without
from trex_ds.seeding import seeded_order

SIZES = {"big": 1000, "middle": 100, "small": 10}
ONES = dict.fromkeys(SIZES, 1.0)


def test_proportional_sees_each_example_weight_times():
    assert epoch_counts(SIZES, ONES, "proportional", 1.0) == SIZES
    weights = {"big": 0.5, "middle": 2.0, "small": 1.0}
    assert epoch_counts(SIZES, weights, "proportional", 1.0) == {"big": 500, "middle": 200, "small": 10}


def test_equal_gives_each_task_the_same_and_keeps_the_length_of_the_epoch():
    counts = epoch_counts(SIZES, ONES, "equal", 1.0)
    assert set(counts.values()) == {370}
    assert sum(counts.values()) == 1110


@pytest.mark.parametrize("temperature", [1.0, 2.0, 5.0])
def test_temperature_takes_the_root_of_the_sizes(temperature):
    counts = epoch_counts(SIZES, ONES, "temperature", temperature)
    assert sum(counts.values()) == sum(SIZES.values())
    for first, second in (("big", "middle"), ("middle", "small")):
        assert counts[first] / counts[second] == pytest.approx(10 ** (1 / temperature), rel=0.05)


def test_weights_scale_equal_shares():
    counts = epoch_counts({"a": 50, "b": 50}, {"a": 3.0, "b": 1.0}, "equal", 1.0)
    assert counts == {"a": 150, "b": 50}


def test_a_task_that_would_not_be_seen_is_refused():
    with pytest.raises(ValueError, match=r"task 'small': an epoch of 1000 examples has none of its 10 at weight 0.01"):
        epoch_counts({"big": 1000, "small": 10}, {"big": 1.0, "small": 0.01}, "proportional", 1.0)


def test_indices_repeat_each_example_equally_often_and_a_seeded_choice_once_more():
    positions = {"a": np.array([0, 2, 4, 6]), "b": np.array([1, 3])}
    indices = epoch_indices(positions, {"a": 10, "b": 1}, seed=0)
    assert indices.dtype == np.int64
    times = np.bincount(indices, minlength=7)
    assert sorted(times[[0, 2, 4, 6]]) == [2, 2, 3, 3]
    assert sorted(times[[1, 3]]) == [0, 1]
    assert np.array_equal(indices, epoch_indices(positions, {"a": 10, "b": 1}, seed=0))
    others = [epoch_indices(positions, {"a": 10, "b": 1}, seed=seed).tolist() for seed in range(1, 9)]
    assert indices.tolist() not in others or len({*map(tuple, others)}) > 1


def test_held_out_examples_do_not_depend_on_the_order_and_leave_with_their_repeats():
    digests = np.random.default_rng(0).integers(-(2**63), 2**63, 40)
    digests[20:] = digests[:20]  # every text twice
    positions = np.arange(40)
    chosen = held_out_positions(positions, digests, 2, seed=0)
    assert len({*digests[chosen]}) == 2
    order = np.random.default_rng(1).permutation(40)
    again = held_out_positions(positions, digests[order], 2, seed=0)
    assert {*digests[order][again]} == {*digests[chosen]}
    rest = without(positions, digests, digests[chosen])
    assert len(rest) == 36
    assert not {*digests[rest]} & {*digests[chosen]}


def test_never_more_than_a_tenth_is_held_out():
    digests = np.arange(25)
    assert len(held_out_positions(np.arange(25), digests, 100, seed=0)) == 2
    assert len(held_out_positions(np.arange(5), digests, 100, seed=0)) == 0


def test_seeded_order_has_no_repeats_and_looks_even():
    order = seeded_order(np.arange(-500, 500), seed=3)
    assert len({*order}) == 1000
    assert abs(np.mean(order / 2**64) - 0.5) < 0.05
    assert not np.array_equal(order, seeded_order(np.arange(-500, 500), seed=4))
