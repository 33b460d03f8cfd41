"""Seeds and seeded choices that are the same on every machine, rank and Python version."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

import numpy as np

from trex_ds.tasks.base import Example

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


def choose(examples: Sequence[Example], count: int | None, seed: int) -> list[Example]:
    """`count` of the examples (all if None), in their order; which ones does not depend on that order."""
    if count is None or count >= len(examples):
        return list(examples)
    ranks = [stable_hash(seed, "choose", example.prompt, example.answer) for example in examples]
    chosen = sorted(range(len(examples)), key=ranks.__getitem__)[:count]
    return [examples[i] for i in sorted(chosen)]


def seeded_order(digests: np.ndarray, seed: int) -> np.ndarray:
    """A number for each of the 64-bit `digests` that looks random and that only it and the seed decide."""
    with np.errstate(over="ignore"):
        x = digests.astype(np.uint64) + np.uint64(stable_hash(seed, "order"))
        # The finaliser of splitmix64 (Steele, Lea and Flood, 2014).
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))
