"""Training items by position: encoded rows with their intuition scores, alone or packed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from trex_ds.data.encoding import Encoded
from trex_ds.data.packing import PackingPlan


class TrainingSet(Dataset[dict[str, Any]]):
    """Encoded rows, each with its intuition scores, in the order and as often as `indices` says.

    Args:
        rows: one for each training example.
        scores: intuition scores of distinct texts, float32 (texts, N); may be memory-mapped; None: items have none.
        score_rows: the row of `scores` that belongs to each of `rows`, (len(rows),); None where there are none.
        indices: positions in `rows`, repeated where an example is seen more than once; a repeated
            row takes no more memory.
        task_numbers: the number of each row's task, (len(rows),); None where the method takes none.

    Raises:
        ValueError: if `rows` and `score_rows` are not equally many.
    """

    def __init__(
        self,
        rows: Sequence[Encoded],
        scores: np.ndarray | None,
        score_rows: np.ndarray | None,
        indices: np.ndarray,
        task_numbers: np.ndarray | None = None,
    ):
        if score_rows is not None and len(score_rows) != len(rows):
            raise ValueError(f"{len(score_rows)} rows of scores are named for {len(rows)} rows; name one for each")
        self._rows = rows
        self._scores = scores
        self._score_rows = score_rows
        self._indices = indices
        self._task_numbers = task_numbers

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, position: int) -> dict[str, Any]:
        index = int(self._indices[position])
        row = self._rows[index]
        item: dict[str, Any] = {"input_ids": row.ids, "labels": row.labels}
        if self._scores is not None and self._score_rows is not None:
            item["intuition"] = torch.from_numpy(np.array(self._scores[self._score_rows[index]]))
        if self._task_numbers is not None:
            item["task_ids"] = int(self._task_numbers[index])
        return item


class PackedSet(Dataset[list[Any]]):
    """The rows of a plan as lists of a dataset's items.

    Args:
        items: any dataset with positions, such as a `TrainingSet`.
        plan: made from the lengths of the same items.

    Raises:
        ValueError: if the plan is for another number of items.
    """

    def __init__(self, items: Any, plan: PackingPlan):
        if len(items) != len(plan.items):
            raise ValueError(f"the plan is for {len(plan.items)} items, the dataset has {len(items)}")
        self._items = items
        self._plan = plan

    def __len__(self) -> int:
        return len(self._plan)

    def __getitem__(self, row: int) -> list[Any]:
        return [self._items[position] for position in self._plan.row(row).tolist()]
