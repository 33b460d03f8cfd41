"""Batches dealt to the ranks, and the results of all of them on every rank."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from trex_ds.distributed import gather_objects, rank, world_size
from trex_ds.progress import Progress

T = TypeVar("T")
R = TypeVar("R")


def run_dealt(batches: Sequence[Sequence[T]], run: Callable[[Sequence[T]], Sequence[R]], description: str) -> list[R]:
    """`run` on every batch, each on one rank; the results of all in the order of the batches, on every rank.

    A collective. Batches are cut beforehand, so what is computed does not depend on the number of ranks.
    Every rank runs the same number of batches, because under ZeRO-3 a forward pass is a collective; a
    rank that has none left runs the last one again and drops the results.
    """
    if not batches:
        return []
    results: dict[int, Sequence[R]] = {}
    rounds = -(-len(batches) // world_size())
    for number in Progress(range(rounds), desc=description, unit=" batches", shown=rank() == 0):
        mine = number * world_size() + rank()
        outcome = run(batches[min(mine, len(batches) - 1)])
        if mine < len(batches):
            results[mine] = outcome
    parts = gather_objects(results)
    collected = {number: part for gathered in parts for number, part in gathered.items()}
    return [result for number in range(len(batches)) for result in collected[number]]
