"""How often each training example is seen in an epoch."""

from __future__ import annotations

import random
from collections.abc import Sequence

from trex_ds.tasks.base import Task
from trex_ds.tasks.seeding import stable_hash


def epoch_indices(tasks: Sequence[Task], seed: int) -> list[int]:
    """Which training examples an epoch has, by their position among those of all tasks.

    Position 0 is the first training example of the first task; the others follow in order of the
    tasks. A task of weight w gives each of its examples floor(w) times, and a seeded choice of them,
    the fraction of w rounded, once more. Every epoch has the same examples; shuffling is the
    sampler's affair.

    Raises:
        ValueError: a task's weight is so small that none of its examples would be seen.
    """
    indices: list[int] = []
    first = 0
    for task in tasks:
        size = len(task.train)
        copies, fraction = divmod(task.weight, 1)
        extra = round(fraction * size)
        if not copies and not extra:
            raise ValueError(
                f"task {task.name!r}: weight {task.weight:g} of {size} training examples leaves none; "
                f"give it a weight of at least {1 / size:.3g}, or remove it"
            )
        chosen = random.Random(stable_hash(seed, "mixing", task.name)).sample(range(size), extra)
        indices += [first + i for i in [*range(size)] * int(copies) + sorted(chosen)]
        first += size
    return indices


def epoch_counts(tasks: Sequence[Task], indices: Sequence[int]) -> dict[str, int]:
    """How many of `indices`, made by `epoch_indices`, belong to each task."""
    owner = [task.name for task in tasks for _ in task.train]
    counts = dict.fromkeys((task.name for task in tasks), 0)
    for index in indices:
        counts[owner[index]] += 1
    return counts
