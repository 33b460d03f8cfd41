"""Batches dealt to the ranks, so that each is run by one of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from trex_ds.distributed import gather_objects, rank, world_size
from trex_ds.progress import Progress

Batch = TypeVar("Batch")
R = TypeVar("R")


def deal(batches: Sequence[Batch], run: Callable[[Batch], R], description: str) -> dict[int, R]:
    """Run each batch on one rank, in turn; a collective.

    Batches are cut beforehand, so what is computed does not depend on the number of ranks. Every rank runs the same
    number of batches, because under ZeRO-3 a forward pass is a collective; a rank that has none left runs the last one
    again and drops the result.

    Args:
        batches: the same on every rank.
        run: called with one batch.
        description: text of the progress bar.

    Returns:
        This rank's results, by the number of the batch.
    """
    results: dict[int, R] = {}
    rounds = -(-len(batches) // world_size())
    for number in Progress(range(rounds), desc=description, unit=" batches", shown=rank() == 0):
        mine = number * world_size() + rank()
        result = run(batches[min(mine, len(batches) - 1)])
        if mine < len(batches):
            results[mine] = result
    return results


def deal_and_gather(batches: Sequence[Batch], run: Callable[[Batch], Sequence[R]], description: str) -> list[R]:
    """Run each batch on one rank, as `deal` does; the items of all results, in the batches' order, on every rank."""
    if not batches:
        return []
    parts = gather_objects(deal(batches, run, description))
    collected = {number: items for part in parts for number, items in part.items()}
    return [item for number in range(len(batches)) for item in collected[number]]
