"""The side input: how a sample's intuition scores reach every adapted layer of a forward pass."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Scores:
    """The scores of one forward pass: transformed per adapter, each (batch, num_clusters), float32.

    `expandable` is set by `generate`, where beams and returned sequences repeat each sample's row.
    """

    by_adapter: Mapping[str, Tensor]
    expandable: bool = False

    def rows(self, adapter_name: str, batch: int) -> Tensor:
        """The adapter's scores for a layer input of `batch` rows: (batch, num_clusters)."""
        scores = self.by_adapter[adapter_name]
        if scores.shape[0] == batch:
            return scores
        if self.expandable and batch % scores.shape[0] == 0:
            return scores.repeat_interleave(batch // scores.shape[0], dim=0)
        raise ValueError(
            f"intuition has {scores.shape[0]} rows but a layer's input has a batch of {batch}; "
            "pass one row of scores for every row of input_ids"
        )


class SideInput:
    """The one object that the model shares with its layers; holds the current pass's `Scores`.

    The value stays until the next forward pass replaces it, because activation checkpointing runs
    layers again during backward. It is replaced, never changed: `captured` can bring it back.
    """

    def __init__(self) -> None:
        self.current: Scores | None = None

    @contextmanager
    def using(self, scores: Scores | None) -> Iterator[None]:
        """Make `scores` current for the block, then bring back what was there."""
        previous, self.current = self.current, scores
        try:
            yield
        finally:
            self.current = previous
