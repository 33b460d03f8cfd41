"""What each stage of the preparation cost."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class Stage:
    """What one stage cost on this rank."""

    name: str
    items: int
    seconds: float
    made: bool
    """False if the cache had it."""
    peak_mib: float
    """Largest resident memory of the process so far."""


@contextmanager
def stage(name: str, stages: list[Stage]) -> Iterator[dict[str, int]]:
    """Time a block, which sets "items" and counts in "made" what it did not find in the cache."""
    started = time.perf_counter()
    counts = {"items": 0, "made": 0}
    yield counts
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    stages.append(Stage(name, counts["items"], time.perf_counter() - started, bool(counts["made"]), peak))
