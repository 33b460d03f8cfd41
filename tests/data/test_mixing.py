from __future__ import annotations

from collections import Counter

import pytest

from trex_ds.data import epoch_counts, epoch_indices
from trex_ds.tasks import Example, Task


def make_task(name: str, size: int, weight: float) -> Task:
    return Task(name, [Example(f"{name} {i}", "x", name) for i in range(size)], [], weight=weight)


TASKS = [make_task("twice", 3, 2.0), make_task("half", 10, 0.5), make_task("more", 4, 1.25)]


def test_weights_are_how_often_an_example_is_seen():
    indices = epoch_indices(TASKS, seed=0)
    assert epoch_counts(TASKS, indices) == {"twice": 6, "half": 5, "more": 5}
    seen = Counter(indices)
    assert [seen[i] for i in range(3)] == [2, 2, 2]
    assert sorted(seen[i] for i in range(3, 13)) == [0] * 5 + [1] * 5
    assert sorted(seen[i] for i in range(13, 17)) == [1, 1, 1, 2]


def test_the_choice_follows_the_seed_alone():
    assert epoch_indices(TASKS, seed=0) == epoch_indices(TASKS, seed=0)
    assert epoch_indices(TASKS, seed=0) != epoch_indices(TASKS, seed=1)
    alone = epoch_indices(TASKS[1:2], seed=0)
    assert [i - 3 for i in epoch_indices(TASKS, seed=0) if 3 <= i < 13] == alone


def test_weight_one_is_every_example_once():
    assert epoch_indices([make_task("a", 3, 1.0), make_task("b", 2, 1.0)], seed=0) == [0, 1, 2, 3, 4]


def test_weight_that_leaves_no_example_is_refused():
    with pytest.raises(ValueError, match=r"task 'rare': weight 0.01 of 10 .* at least 0.1, or remove it"):
        epoch_indices([make_task("rare", 10, 0.01)], seed=0)
