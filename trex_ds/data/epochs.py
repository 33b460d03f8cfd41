"""How often each training example is seen in an epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from trex_ds.data.config import Mixing
from trex_ds.seeding import seeded_order, stable_hash


def epoch_counts(
    sizes: Mapping[str, int], weights: Mapping[str, float], mixing: Mixing, temperature: float
) -> dict[str, int]:
    """How many examples of each task an epoch has.

    A task of n examples and weight w has a share of the epoch proportional to w * n^(1/T): T = 1 is
    proportional, T = infinity equal. The epoch is as long as the weighted tasks together, sum of w * n,
    so that with "proportional" each example of a task is seen w times.

    Args:
        sizes: training examples of each task.
        weights: each task's weight.
        mixing: "temperature" takes T from `temperature`, the others ignore it.
        temperature: T, at least 1.

    Raises:
        ValueError: a share so small that a task would not be seen at all.
    """
    exponent = {"proportional": 1.0, "equal": 0.0, "temperature": 1.0 / temperature}[mixing]
    shares = {name: weights[name] * size**exponent for name, size in sizes.items()}
    total = sum(weights[name] * size for name, size in sizes.items())
    wanted = {name: total * share / sum(shares.values()) for name, share in shares.items()}
    # The largest fractions are rounded up, so that the counts have the right sum.
    counts = {name: int(count) for name, count in wanted.items()}
    for name in sorted(wanted, key=lambda name: counts[name] - wanted[name])[: round(total) - sum(counts.values())]:
        counts[name] += 1
    missing = [name for name, count in counts.items() if not count]
    if missing:
        raise ValueError(
            f"task {missing[0]!r}: an epoch of {round(total)} examples has none of its {sizes[missing[0]]} at weight "
            f"{weights[missing[0]]:g} with data.mixing {mixing}; raise its weight, or remove it"
        )
    return counts


def epoch_indices(positions: Mapping[str, np.ndarray], counts: Mapping[str, int], seed: int) -> np.ndarray:
    """Indices of an epoch's training examples: int64, in order of the tasks.

    Each example of a task is taken equally often, and a seeded choice of them once more. Every epoch
    has the same examples; shuffling is the sampler's affair.

    Args:
        positions: where each task's examples lie among all.
        counts: as `epoch_counts` gives them.
        seed: decides which examples are taken once more.
    """
    parts: list[np.ndarray] = []
    for name, own in positions.items():
        copies, extra = divmod(counts[name], len(own))
        generator = np.random.default_rng(stable_hash(seed, "mixing", name))
        chosen = np.sort(generator.choice(len(own), extra, replace=False))
        parts += [own] * copies + [own[chosen]]
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)


def held_out_positions(positions: np.ndarray, digests: np.ndarray, count: int, seed: int) -> np.ndarray:
    """`count` of a task's examples, distinct in their digests, that a seed chooses whatever their order.

    Args:
        positions: where the task's examples lie among all, ascending.
        digests: of all examples' texts.
        count: how many at most; never more than a tenth of the task's examples.
        seed: of the choice.
    """
    own = digests[positions]
    _, first = np.unique(own, return_index=True)
    order = np.argsort(seeded_order(own[first], seed), kind="stable")
    return np.sort(positions[first[order[: min(count, len(first) // 10)]]])


def without(positions: np.ndarray, digests: np.ndarray, removed: Sequence[int] | np.ndarray) -> np.ndarray:
    """`positions` without those whose text is that of one of the digests `removed`."""
    return positions[~np.isin(digests[positions], np.asarray(removed, np.int64))]
