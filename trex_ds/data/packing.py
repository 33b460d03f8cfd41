"""Packing: several training items in one row, so that short items leave no padding behind.

Batches of rows are made by `trex_ds.data.collator.PackedCollator`; inside the model the items of a
row see nothing of each other (see docs/method.md).
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

WINDOW = 4096
"""Items that are fitted to each other. Their open rows are all that planning holds beside its result; each
window leaves a few rows half full, and what it gains beyond a few thousand items is less than a percent."""


@dataclass(frozen=True, eq=False)
class PackingPlan:
    """Assignment of items to rows: every item once. Two arrays, whatever the number of rows."""

    items: np.ndarray
    """Positions of the items, row by row: (items,), int64."""
    starts: np.ndarray
    """Start of each row in `items`, and the end of the last: (rows + 1,), int64."""
    row_length: int
    """Tokens that a row has room for."""
    num_tokens: int
    """Tokens of all items."""

    def __len__(self) -> int:
        return len(self.starts) - 1

    def row(self, index: int) -> np.ndarray:
        """Positions of the items in a row."""
        return self.items[self.starts[index] : self.starts[index + 1]]

    @property
    def fill_rate(self) -> float:
        """Tokens over the room for them, at most 1."""
        return self.num_tokens / (len(self) * self.row_length)

    def __str__(self) -> str:
        return (
            f"{len(self.items)} examples in {len(self)} rows of {self.row_length} tokens, "
            f"{len(self.items) / len(self):.1f} a row, {self.fill_rate:.1%} full"
        )


def plan_rows(lengths: Sequence[int] | np.ndarray, row_length: int, seed: int) -> PackingPlan:
    """Group items into rows of at most `row_length` tokens; the same plan for the same arguments.

    The items are shuffled and taken in windows; in each the longest come first, and each goes into the
    fullest row that has room for it (best-fit decreasing). Only items that are neighbors by chance
    share a row, so a row is a random sample of the mixture.

    Args:
        lengths: tokens of each item.
        row_length: tokens that a row has room for.
        seed: of the shuffling.

    Raises:
        ValueError: no items, or an item of no tokens or of more than a row has room for.
    """
    sizes = np.asarray(lengths, dtype=np.int64)
    if not sizes.size:
        raise ValueError("there are no items to pack")
    if sizes.min() < 1 or sizes.max() > row_length:
        raise ValueError(
            f"items have {sizes.min()} to {sizes.max()} tokens, but a row has room for 1 to {row_length}; "
            "leave out the others"
        )
    shuffled: np.ndarray = np.random.default_rng(seed).permutation(sizes.size)
    items = np.empty_like(shuffled)
    counts: list[np.ndarray] = []
    for first in range(0, sizes.size, WINDOW):
        window = shuffled[first : first + WINDOW]
        window = window[np.argsort(-sizes[window], kind="stable")]
        rows = _best_fit(sizes[window], row_length)
        items[first : first + WINDOW] = window[np.argsort(rows, kind="stable")]
        counts.append(np.bincount(rows))
    starts = np.concatenate(([0], np.cumsum(np.concatenate(counts))))
    return PackingPlan(items, starts, row_length, int(sizes.sum()))


def _best_fit(sizes: np.ndarray, row_length: int) -> np.ndarray:
    """The row of each size, (sizes,), int64: the one with the least room that has enough, or a new one."""
    rows: np.ndarray = np.empty(len(sizes), dtype=np.int64)
    room: list[tuple[int, int]] = []  # of each row that has any, sorted: tokens left, row
    opened = 0
    for item, size in enumerate(sizes.tolist()):
        place = bisect.bisect_left(room, (size, 0))
        if place == len(room):
            left, row = row_length, opened
            opened += 1
        else:
            left, row = room.pop(place)
        rows[item] = row
        if left > size:
            bisect.insort(room, (left - size, row))
    return rows
