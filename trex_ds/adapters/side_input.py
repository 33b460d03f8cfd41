"""The side input: how a sample's intuition scores reach every adapted layer of a forward pass."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from trex_ds.adapters.router import Router


@dataclass(frozen=True)
class Scores:
    """The scores of one forward pass: transformed per adapter, each (samples, num_clusters), float32.

    An adapter whose method takes no scores has none.

    A sample is a row of the batch, or, in a packed pass, a segment of a row; then `token_rows`
    (batch, seq), int64, says which sample each token belongs to. `expandable` is set by `generate`,
    where beams and returned sequences repeat each sample's row.
    """

    by_adapter: Mapping[str, Tensor]
    token_rows: Tensor | None = None
    expandable: bool = False

    def rows(self, adapter_name: str, batch: int, seq: int) -> Tensor | None:
        """The adapter's scores for a layer input (batch, seq, features): (samples, num_clusters), if it takes any.

        Raises:
            ValueError: if they are those of an input of another shape.
        """
        scores = self.by_adapter.get(adapter_name)
        if scores is None:
            return None
        if self.token_rows is not None:
            if self.token_rows.shape == (batch, seq):
                return scores
            raise ValueError(
                f"segment_ids are {tuple(self.token_rows.shape)} but a layer's input is {(batch, seq)}; pass one id "
                "for every token of input_ids, and adapt no linear that sees only a part of the tokens"
            )
        if scores.shape[0] == batch:
            return scores
        if self.expandable and batch % scores.shape[0] == 0:
            return scores.repeat_interleave(batch // scores.shape[0], dim=0)
        raise ValueError(
            f"intuition has {scores.shape[0]} rows but a layer's input has a batch of {batch}; "
            "pass one row of scores for every row of input_ids"
        )


def flat_segments(intuition: Tensor, segment_ids: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """One row of scores a sample, and each token's row among them if the pass is packed.

    Args:
        intuition: (batch, num_clusters), or packed (batch, segments, num_clusters).
        segment_ids: None, or packed (batch, seq), int64: each token's segment in its row.

    Returns:
        (batch, num_clusters) and None, or (batch * segments, num_clusters) and (batch, seq).

    Raises:
        ValueError: if the two do not go together, or an id has no scores.
    """
    shape = tuple(intuition.shape)
    if segment_ids is None:
        if intuition.dim() == 3:
            raise ValueError(f"intuition {shape} is packed, (batch, segments, num_clusters), but has no segment_ids")
        return intuition, None
    if intuition.dim() != 3:
        raise ValueError(f"with segment_ids intuition must be (batch, segments, num_clusters), got {shape}")
    if segment_ids.dtype != torch.int64 or segment_ids.dim() != 2 or len(segment_ids) != shape[0]:
        raise ValueError(
            f"segment_ids must be int64 (batch={shape[0]}, seq), got {segment_ids.dtype} {tuple(segment_ids.shape)}"
        )
    low, high = torch.stack(segment_ids.aminmax()).tolist()
    if low < 0 or high >= shape[1]:
        raise ValueError(f"segment_ids go from {low} to {high}, but intuition has scores of {shape[1]} segments a row")
    first = torch.arange(shape[0], device=segment_ids.device).unsqueeze(1) * shape[1]
    return intuition.flatten(0, 1), segment_ids + first


def isolated(arguments: Mapping[str, Any], attention: str | None) -> dict[str, Any]:
    """The arguments of a packed pass, made so that no segment sees another.

    transformers keeps segments apart by positions that start again, but only where it finds neither a
    two-dimensional mask nor a cache, which it makes by default. Flash attention looks for them in a
    batch of one row alone.

    Args:
        arguments: the base model's: position_ids (batch, seq), 0 at the start of each segment, and no
            attention_mask; or an attention_mask (batch, 1, seq, seq) that keeps them apart.
        attention: the base model's attention implementation, if it names one.

    Raises:
        ValueError: if segments would see each other, saying what to pass instead.
    """
    if arguments.get("use_cache") or arguments.get("past_key_values") is not None:
        raise ValueError("a packed pass cannot keep or use a cache: rows do not go on, only their last segment could")
    mask, positions = arguments.get("attention_mask"), arguments.get("position_ids")
    if positions is None or (mask is not None and mask.dim() != 4):
        raise ValueError(
            "segments are kept apart by position_ids that start again at each, without an attention_mask; "
            "a packed pass needs the one and must leave out the other"
        )
    if mask is None and attention is not None and "flash" in attention and len(positions) > 1:
        raise ValueError(f"{attention} keeps segments apart in one row only, got {len(positions)}; join the rows")
    return {**arguments, "use_cache": False}


class SideInput:
    """The one object that the model shares with its layers; holds the current pass's `Scores`.

    The value stays until the next forward pass replaces it, because activation checkpointing runs
    layers again during backward. It is replaced, never changed: `using` can bring it back. The other
    way round, routers leave here what they say of the pass.
    """

    def __init__(self) -> None:
        self.current: Scores | None = None
        self.losses: dict[Router, Tensor] = {}
        self.loads: dict[Router, Tensor] = {}
        self._runs_again = False

    def report(self, router: Router, loss: Tensor | None, load: Tensor | None) -> None:
        """Keep what a router says of a training pass."""
        # What a layer says when it runs again in backward would keep all of the block's activations alive.
        if self._runs_again or not (router.training and torch.is_grad_enabled()):
            return
        if loss is not None:
            self.losses[router] = loss
        if load is not None:
            self.loads[router] = load

    def take_loads(self) -> dict[Router, Tensor]:
        """The loads since they were last taken."""
        taken, self.loads = self.loads, {}
        return taken

    @contextmanager
    def using(self, scores: Scores | None) -> Iterator[None]:
        """Make `scores` current for the block, then bring back what was there."""
        previous, self.current = self.current, scores
        try:
            yield
        finally:
            self.current = previous

    @contextmanager
    def again(self, scores: Scores | None) -> Iterator[None]:
        """`using`, for layers that run again in backward."""
        with self.using(scores):
            self._runs_again = True
            try:
                yield
            finally:
                self._runs_again = False
