"""Seeds, digests and seeded choices that are the same on every machine, rank and Python version."""

from __future__ import annotations

import hashlib
import heapq
import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

_RANGE = 2**31


def stable_hash(*parts: str | int) -> int:
    """A number in [0, 2**31) from `parts`; unlike hash() it does not change between processes."""
    return int.from_bytes(hashlib.sha256(json.dumps(parts).encode()).digest()[:8], "big") % _RANGE


def stable_fraction(*parts: str | int) -> float:
    """A number in [0, 1) from `parts`."""
    return stable_hash(*parts) / _RANGE


def text_digest(text: str) -> int:
    """64 bits that stand for a text where keeping it would take too much memory."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little", signed=True)


def seeded_order(digests: np.ndarray, seed: int) -> np.ndarray:
    """A number for each of the 64-bit `digests` that looks random and that only it and the seed decide."""
    import numpy as np  # here, since a recipe is checked without it

    with np.errstate(over="ignore"):
        x = digests.astype(np.uint64) + np.uint64(stable_hash(seed, "order"))
        # The finalizer of splitmix64 (Steele, Lea and Flood, 2014).
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))


class Lowest:
    """The `count` items of a stream whose keys are lowest; memory is bounded by `count`.

    Keys that are hashes of the items make it a seeded choice that does not depend on their order;
    positions decide between items of equal keys.
    """

    def __init__(self, count: int):
        self._count = count
        self._heap: list[tuple[int, int]] = []  # negated, so that the highest comes out first

    def add(self, key: int, position: int) -> None:
        """Take an item into account."""
        item = (-key, -position)
        if len(self._heap) < self._count:
            heapq.heappush(self._heap, item)
        else:
            heapq.heappushpop(self._heap, item)

    def has(self, key: int, position: int) -> bool:
        """Whether an item that was added is among the lowest."""
        return (-key, -position) >= self._heap[0]
