"""What a forward pass gives to its adapted linears: intuition scores, and whose tokens they see."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

BASE_NAME = "__base__"
"""What PEFT calls a row without an adapter in a mixed batch."""


class Fitted(NamedTuple):
    """How the input of a linear is laid out for a router."""

    shape: tuple[int, int]
    """(batch, seq) that the input's leading dimensions are reshaped to."""
    token_rows: Tensor | None
    """Each token's sample, of that shape, int64; None: samples are the batch's rows."""


@dataclass(frozen=True)
class Pass:
    """What one forward pass of the model gives to its adapted linears; never changed, but replaced."""

    by_adapter: Mapping[str, Tensor]
    """Transformed scores, (samples, num_clusters), float32 or wider, of each adapter whose method takes any."""
    shape: tuple[int, int] | None = None
    """(batch, seq) of the model's input; None if it has none of that form."""
    token_rows: Tensor | None = None
    """Packed: each token's sample, (batch, seq), int64; None: samples are the batch's rows."""
    kept: Tensor | int = 0
    """The model's `logits_to_keep`: which tokens its output head sees."""
    adapter_names: tuple[str, ...] | None = None
    """The adapter of each of the batch's rows, where they differ."""

    def of_generation(self, shape: tuple[int, int] | None) -> Pass:
        """This pass for a step of `generate`, where beams and returned sequences repeat each sample's row.

        Args:
            shape: of the step's input.
        """
        rows = {len(scores) for scores in self.by_adapter.values()} | (
            set() if self.adapter_names is None else {len(self.adapter_names)}
        )
        if shape is None or not rows:
            return replace(self, shape=shape)
        (samples,) = rows
        if shape[0] % samples:
            raise ValueError(
                f"intuition has {samples} rows but the model is given a batch of {shape[0]}; "
                "pass one row of scores for every row of input_ids"
            )
        times = shape[0] // samples
        by_adapter = {name: scores.repeat_interleave(times, dim=0) for name, scores in self.by_adapter.items()}
        names = self.adapter_names and tuple(name for name in self.adapter_names for _ in range(times))
        return replace(self, by_adapter=by_adapter, shape=shape, adapter_names=names)

    def fit(self, adapter_name: str, given: Sequence[int], linear: str) -> Fitted:
        """Match the rows of a linear's input with the tokens of the pass.

        Linears may see (batch, seq, features), rows merged to (tokens, features), one row a sample, only the
        tokens that have logits, or further dimensions.

        Args:
            adapter_name: whose scores are needed.
            given: the input's dimensions but for its features.
            linear: its name, for errors.

        Raises:
            ValueError: if it cannot be told.
        """
        given = tuple(given)
        tokens = math.prod(given)
        scores = self.by_adapter.get(adapter_name)
        if scores is None and self.adapter_names is None:
            return Fitted((given[0], given[1]) if len(given) == 2 else (1, tokens), None)
        fitted = self._packed(given, tokens) if self.token_rows is not None else self._rows(given, tokens, scores)
        if fitted is None:
            raise ValueError(self._misfit(given, linear, scores))
        return fitted

    def _rows(self, given: tuple[int, ...], tokens: int, scores: Tensor | None) -> Fitted | None:
        samples = len(scores) if scores is not None else len(self.adapter_names or ())
        if len(given) >= 2 and given[0] == samples:
            return Fitted((samples, tokens // samples), None)
        if self.shape is None or self.shape[0] != samples:
            return None
        if tokens == math.prod(self.shape):
            return Fitted(self.shape, None)
        if isinstance(self.kept, Tensor) and self.kept.dtype == torch.bool and tokens == int(self.kept.sum()):
            return Fitted((1, tokens), self.kept.nonzero()[:, 0].unsqueeze(0))
        return Fitted((samples, 1), None) if given == (samples,) else None

    def _packed(self, given: tuple[int, ...], tokens: int) -> Fitted | None:
        assert self.token_rows is not None
        rows, (batch, seq) = self.token_rows, self.token_rows.shape
        if len(given) > 2 and given[0] == batch and seq in given[1:]:
            if given[1:].count(seq) > 1:
                return None  # which of them are the tokens?
            place = given.index(seq, 1)
            view = [batch, *(seq if i == place else 1 for i in range(1, len(given)))]
            return Fitted((batch, tokens // batch), rows.view(view).expand(given).reshape(batch, -1))
        if given == (batch, seq):
            return Fitted((batch, seq), rows)
        if (tokens == batch * seq and len(given) == 1) or given == (1, batch * seq):
            return Fitted((1, tokens), rows.reshape(1, -1))
        if isinstance(self.kept, int):
            return Fitted((batch, self.kept), rows[:, seq - self.kept :]) if given == (batch, self.kept) else None
        if self.kept.dtype == torch.bool:
            return Fitted((1, tokens), rows[self.kept].unsqueeze(0)) if tokens == int(self.kept.sum()) else None
        return Fitted((batch, len(self.kept)), rows[:, self.kept]) if given == (batch, len(self.kept)) else None

    def _misfit(self, given: tuple[int, ...], linear: str, scores: Tensor | None) -> str:
        if self.token_rows is not None:
            return (
                f"segment_ids are {tuple(self.token_rows.shape)} but a layer's input is {given}; pass one id for every "
                f"token of input_ids, and adapt no linear that sees only a part of the tokens, as {linear} may"
            )
        samples = len(scores) if scores is not None else len(self.adapter_names or ())
        if self.shape is not None and self.shape[0] != samples:
            return (
                f"intuition has {samples} rows but a layer's input has a batch of {self.shape[0]}; "
                "pass one row of scores for every row of input_ids"
            )
        return (
            f"{linear} sees an input of {(*given, 'features')}, of which it cannot be told whose tokens these are (the "
            f"model's input is {self.shape}); leave it out with exclude_modules"
        )


def input_shape(args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[int, int] | None:
    """(batch, seq) of the input of a transformers model, by its arguments; None if it cannot be told."""
    found = [kwargs.get("input_ids"), kwargs.get("inputs_embeds"), *args[:1]]
    tensor = next((value for value in found if isinstance(value, Tensor) and value.dim() >= 2), None)
    return None if tensor is None else (tensor.shape[0], tensor.shape[1])


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


def isolated(arguments: Mapping[str, Any], model: Any) -> dict[str, Any]:
    """The arguments of a packed pass, made so that no segment sees another.

    What an architecture needs for that, and whether it can be done, is tried once: see `trex_ds.modeling.rows`.

    Args:
        arguments: the base model's: position_ids (batch, seq), 0 at the start of each segment, and no
            attention_mask; or an attention_mask (batch, 1, seq, seq) that keeps them apart.
        model: the base model.

    Raises:
        ValueError: if segments would see each other, saying what to pass instead.
    """
    from trex_ds.modeling.rows import rows_of

    if arguments.get("use_cache") or arguments.get("past_key_values") is not None:
        raise ValueError("a packed pass cannot keep or use a cache: rows do not go on, only their last segment could")
    mask, positions = arguments.get("attention_mask"), arguments.get("position_ids")
    if positions is None or (mask is not None and mask.dim() != 4):
        raise ValueError(
            "segments are kept apart by position_ids that start again at each, without an attention_mask; "
            "a packed pass needs the one and must leave out the other"
        )
    if mask is not None:
        return {**arguments, "use_cache": False}
    attention = getattr(model.config, "_attn_implementation", None) or "eager"
    if "flash" in attention and len(positions) > 1:
        raise ValueError(f"{attention} keeps segments apart in one row only, got {len(positions)}; join the rows")
    rows = rows_of(model.config, attention)
    if rows.packed is None:
        raise ValueError(f"{rows.reason}; pass one sample a row, without segment_ids")
    dtype = next(model.parameters()).dtype
    return {**arguments, **rows.packed.arguments(positions, model.config, dtype)}
