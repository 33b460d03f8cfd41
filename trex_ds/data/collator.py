"""Rows with their intuition scores, and batches of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import Dataset

from trex_ds.data.encoding import IGNORED_LABEL, Encoded


class TrainingSet(Dataset[dict[str, Any]]):
    """Encoded rows, each with its intuition scores, in the order and as often as `indices` says.

    Args:
        rows: one for each training example.
        scores: intuition scores of the same examples, (len(rows), N).
        indices: positions in `rows`, repeated where an example is seen more than once; a repeated
            row takes no more memory.
    """

    def __init__(self, rows: Sequence[Encoded], scores: torch.Tensor, indices: Sequence[int]):
        if scores.ndim != 2 or len(scores) != len(rows):
            raise ValueError(
                f"scores of shape {tuple(scores.shape)} for {len(rows)} rows; give one row of scores for each, "
                f"({len(rows)}, num_clusters)"
            )
        self._rows = rows
        self._scores = scores.float()
        self._indices = indices

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, position: int) -> dict[str, Any]:
        index = self._indices[position]
        row = self._rows[index]
        return {"input_ids": row.input_ids, "labels": row.labels, "intuition": self._scores[index]}


@dataclass(frozen=True)
class Collator:
    """Pads items to a batch, on the left, so that all rows end together: with their answers, or ready to go on."""

    pad_token_id: int

    def __call__(self, items: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """A batch of items with `input_ids`, `intuition` (N,) and, for training, `labels`.

        Returns:
            `input_ids`, `attention_mask` (1 on real tokens) and `labels` (-100 on padding), int64
            (batch, seq), and `intuition`, float32 (batch, N).
        """
        ids = [item["input_ids"] for item in items]
        batch = {
            "input_ids": _pad(ids, self.pad_token_id),
            "attention_mask": _pad([[1] * len(row) for row in ids], 0),
            "intuition": torch.stack([item["intuition"] for item in items]).float(),
        }
        if "labels" in items[0]:
            batch["labels"] = _pad([item["labels"] for item in items], IGNORED_LABEL)
        return batch


def _pad(rows: Sequence[Sequence[int]], value: int) -> torch.Tensor:
    length = max(map(len, rows))
    return torch.tensor([[value] * (length - len(row)) + list(row) for row in rows])
