"""Batches of training items: one item a row, or several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence

from trex_ds.data.encoding import IGNORED_LABEL


@dataclass(frozen=True)
class Collator:
    """Pads items to a batch: on the right for training, else on the left, so that all rows end ready to go on.

    On the right no architecture can see the padding, also one that carries a state from token to token.
    """

    pad_token_id: int

    def __call__(self, items: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """A batch of items with `input_ids`, for training `labels`, and where they are taken `intuition`, `task_ids`.

        Returns:
            `input_ids`, `attention_mask` (1 on real tokens) and `labels` (-100 on padding), int64
            (batch, seq), `intuition`, float32 (batch, N), and `task_ids`, int64 (batch,).
        """
        ids, left = [item["input_ids"] for item in items], "labels" not in items[0]
        batch = {
            "input_ids": _pad(ids, self.pad_token_id, left),
            "attention_mask": _pad([[1] * len(row) for row in ids], 0, left),
        }
        if "intuition" in items[0]:
            batch["intuition"] = torch.stack([item["intuition"] for item in items]).float()
        if "task_ids" in items[0]:
            batch["task_ids"] = torch.tensor([item["task_ids"] for item in items])
        if "labels" in items[0]:
            batch["labels"] = _pad([item["labels"] for item in items], IGNORED_LABEL, left)
        return batch


@dataclass(frozen=True)
class PackedCollator:
    """Joins the items of each row of a `PackedSet` to one row of tokens, padded on the right."""

    pad_token_id: int
    one_row: bool
    """Join the rows too, to one without padding. Flash attention needs it, at no cost; to the other kinds a
    row costs the square of its length."""

    def __call__(self, rows: Sequence[Sequence[Mapping[str, Any]]]) -> dict[str, torch.Tensor]:
        """A batch of rows, each of items with `input_ids`, `labels` and, where the method takes it, `intuition` (N,).

        Returns:
            int64 (batch, seq): `input_ids`; `labels`, -100 on padding and on the first token of each item,
            before which nothing is that could predict it; `position_ids` from 0 in each item, 0 on padding;
            `segment_ids`, each token's item in its row, 0 on padding; `attention_mask`, 1 on real tokens, for
            counting them: the model must not see it. And `intuition`, float32 (batch, segments, N), 0 where a
            row has fewer segments than another.
        """
        if self.one_row:
            rows = [[item for row in rows for item in row]]
        lengths = [torch.tensor([len(item["input_ids"]) for item in row]) for row in rows]
        labels = [_joined(row, "labels") for row in rows]
        for row, counts in zip(labels, lengths, strict=True):
            row[counts.cumsum(0) - counts] = IGNORED_LABEL
        columns = {
            "input_ids": (self.pad_token_id, [_joined(row, "input_ids") for row in rows]),
            "labels": (IGNORED_LABEL, labels),
            "position_ids": (0, [torch.cat([torch.arange(n) for n in counts.tolist()]) for counts in lengths]),
            "segment_ids": (0, [torch.arange(len(counts)).repeat_interleave(counts) for counts in lengths]),
            "attention_mask": (0, [torch.ones_like(row) for row in labels]),
        }
        if "intuition" in rows[0][0]:
            columns["intuition"] = (0, [torch.stack([item["intuition"] for item in row]).float() for row in rows])
        return {
            name: pad_sequence(tensors, batch_first=True, padding_value=padding)
            for name, (padding, tensors) in columns.items()
        }


def _joined(items: Sequence[Mapping[str, Any]], name: str) -> torch.Tensor:
    return torch.cat([torch.as_tensor(item[name], dtype=torch.int64) for item in items])


def _pad(rows: Sequence[Sequence[int]], value: int, left: bool) -> torch.Tensor:
    length = max(map(len, rows))
    padding = [[value] * (length - len(row)) for row in rows]
    return torch.tensor([[*p, *row] if left else [*row, *p] for p, row in zip(padding, rows, strict=True)])
