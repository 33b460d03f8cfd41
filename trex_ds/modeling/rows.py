"""How an architecture takes rows: several segments in one row, and rows that are padded in front.

transformers keeps the segments of a packed row apart by position ids that start again, but not in every
architecture: some build their masks without position ids, some carry a state or a convolution over the
whole row. What is said here is tried, on the architecture's tiny twin.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import torch
from torch import Tensor

from trex_ds.modeling.twin import WINDOW, tiny_twin

_TOLERANCE = 1e-3
"""Largest difference of logits that rounding explains, in standard deviations of the logits."""
_FLASH = "probe_of_varlen"


@dataclass(frozen=True)
class PackedForm:
    """What keeps the segments of a packed row apart, beside position ids that start again at each."""

    mask: Literal["none", "boolean", "additive"]
    """A mask (batch, 1, seq, seq): none, True where a token may look, or 0 there and the least number elsewhere."""
    by_layer_type: bool = False
    """The masks are given by the type of layer, because some layers see a window only."""

    def arguments(self, position_ids: Tensor, config: Any, dtype: torch.dtype) -> dict[str, Any]:
        """The arguments of the model's forward that keep segments apart.

        Args:
            position_ids: (batch, seq), 0 at the start of each segment.
            config: the model's.
            dtype: of an additive mask.
        """
        found: dict[str, Any] = {"position_ids": position_ids, "use_cache": False}
        if self.mask == "none":
            return found
        # A token of padding has position 0, so it is a segment of its own.
        segments = (position_ids == 0).cumsum(1)
        positions = torch.arange(position_ids.shape[1], device=position_ids.device)
        distance = positions.unsqueeze(1) - positions
        allowed = (segments.unsqueeze(2) == segments.unsqueeze(1)) & (distance >= 0)
        if not self.by_layer_type:
            return found | {"attention_mask": self._made(allowed, dtype)}
        config = config.get_text_config()
        near = allowed & (distance < config.sliding_window)
        masks = {kind: near if "sliding" in kind else allowed for kind in set(config.layer_types)}
        return found | {"attention_mask": {kind: self._made(mask, dtype) for kind, mask in masks.items()}}

    def _made(self, allowed: Tensor, dtype: torch.dtype) -> Tensor:
        allowed = allowed.unsqueeze(1)
        if self.mask == "boolean":
            return allowed
        return torch.zeros_like(allowed, dtype=dtype).masked_fill_(~allowed, torch.finfo(dtype).min)


@dataclass(frozen=True)
class Rows:
    """How an architecture takes rows."""

    packed: PackedForm | None
    """How segments are kept apart; None: they cannot be, or it could not be tried."""
    left_padding: bool
    """Whether padding in front of a row leaves its logits as they are."""
    reason: str
    """Reason why rows are not packed; empty if they can be."""
    fault: str = ""
    """Reason why nothing can be trained; empty if it can be, or could not be tried."""


def rows_of(config: Any, attention: str) -> Rows:
    """How models of an architecture take rows; tried on its tiny twin the first time it is asked.

    Args:
        config: transformers' configuration of the model.
        attention: the name of the attention in a recipe, or transformers' own.
    """
    kind = "eager" if attention == "eager" else "flash" if "flash" in attention else "sdpa"
    values = {k: v for k, v in config.to_dict().items() if not k.startswith("_")}
    with torch.device("cpu"), torch.autocast("cpu", enabled=False):  # whatever the pass is in for which it is asked
        return _tried(_Key(json.dumps(values, sort_keys=True, default=str), config), kind)


@dataclass(frozen=True)
class _Key:
    text: str
    config: Any

    def __hash__(self) -> int:
        return hash(self.text)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Key) and self.text == other.text


@cache
def _tried(key: _Key, kind: str) -> Rows:
    name = key.config.model_type
    if kind == "flash":
        _register_flash()
    twin = tiny_twin(key.config, _FLASH if kind == "flash" else kind)
    if twin is None:
        return Rows(None, False, f"no tiny {name} could be made to try whether the segments of a row stay apart")
    alone, joined, padded_left, padded_right = _trial(twin)
    if alone is None or _equal(joined, alone):
        return Rows(None, False, f"a tiny {name} did not show whether the segments of a row stay apart")
    left = _equal(padded_left, alone)
    fault = ""
    if not _is_causal(joined, alone):
        fault = f"in a {name} tokens see those that follow them, so there is nothing to predict"
    elif not _equal(padded_right, alone):
        fault = f"a {name} gives other logits where positions from 0 are passed or padding follows"
    for form in _forms(key.config, kind):
        packed = _packed_logits(twin, form, one_row=kind == "flash")
        if packed is not None and _equal(packed, alone):
            return Rows(form, left, "", fault)
    return Rows(None, left, f"in {name} the segments of a packed row would see each other", fault)


def _forms(config: Any, kind: str) -> Iterator[PackedForm]:
    yield PackedForm("none")
    if kind == "flash":
        return  # takes no mask
    text = config.get_text_config()
    local = any("sliding" in kind for kind in getattr(text, "layer_types", None) or ()) and text.sliding_window
    masks: tuple[Literal["boolean", "additive"], ...] = ("additive",) if kind == "eager" else ("boolean", "additive")
    for mask in masks:
        yield PackedForm(mask)
        if local:
            yield PackedForm(mask, by_layer_type=True)


# Longer than a twin's window, of different lengths, so that a wrong position or boundary shows.
_LENGTHS = ((WINDOW + 5, WINDOW + 3), (WINDOW + 1, WINDOW + 6))


def _segments() -> list[list[Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return [[torch.randint(3, 100, (n,), generator=generator) for n in row] for row in _LENGTHS]


def _trial(twin: Any) -> tuple[Tensor | None, ...]:
    """Logits of every segment by itself, behind the first of its row, behind padding, and before padding.

    Each (tokens, vocabulary), or None if the model does not take the arguments.
    """
    rows = _segments()
    segments = [segment for row in rows for segment in row]
    alone = _logits(twin, [{"input_ids": segment[None]} for segment in segments])
    joined = _logits(twin, [{"input_ids": torch.cat(row)[None]} for row in rows])
    long = max(map(len, segments))
    padded = []
    for left in (True, False):
        found = _logits(twin, [_padded(segment, long - len(segment), left) for segment in segments])
        lengths = list(map(len, segments))
        padded.append(found and [row[-n:] if left else row[:n] for row, n in zip(found, lengths, strict=True)])
    return tuple(None if found is None else torch.cat(found) for found in (alone, joined, *padded))


def _padded(segment: Tensor, width: int, left: bool) -> dict[str, Tensor]:
    """The arguments of a row of one segment with `width` tokens of padding."""
    pad = (width, 0) if left else (0, width)
    mask = torch.nn.functional.pad(torch.ones_like(segment), pad)[None]
    ids = torch.nn.functional.pad(segment, pad, value=5)[None]
    return {"input_ids": ids, "attention_mask": mask, "position_ids": (mask.cumsum(1) - 1).clamp(min=0)}


def _packed_logits(twin: Any, form: PackedForm, one_row: bool) -> Tensor | None:
    """Logits of every segment in packed rows, the last one padded: (tokens, vocabulary)."""
    rows = _segments()
    if one_row:
        rows = [[segment for row in rows for segment in row]]
    ids = [torch.cat(row) for row in rows]
    positions = [torch.cat([torch.arange(len(segment)) for segment in row]) for row in rows]
    width = max(map(len, ids)) + (0 if one_row else 2)
    pad = [(0, width - len(row)) for row in ids]
    fill = torch.nn.functional.pad
    position_ids = torch.stack([fill(row, p) for row, p in zip(positions, pad, strict=True)])
    arguments = form.arguments(position_ids, twin.config, torch.float32)
    arguments["input_ids"] = torch.stack([fill(row, p, value=5) for row, p in zip(ids, pad, strict=True)])
    found = _logits(twin, [arguments])
    if found is None:
        return None
    return torch.cat([logits[: len(row)] for logits, row in zip(found, ids, strict=True)])


def _logits(twin: Any, calls: Sequence[Mapping[str, Any]]) -> list[Tensor] | None:
    """Logits of every row of every call; None if the model does not take the arguments."""
    try:
        with torch.no_grad():
            return [row for call in calls for row in twin(**{"use_cache": False, **call}).logits]
    except Exception:  # an architecture's own code may take no such mask, or no positions
        return None


def _is_causal(joined: Tensor | None, alone: Tensor) -> bool:
    """Whether the first segments of rows have the same logits when another follows."""
    start, pairs = 0, []
    for first, second in _LENGTHS:
        pairs.append(slice(start, start + first))
        start += first + second
    return joined is None or all(_equal(joined[own], alone[own]) for own in pairs)


def _equal(one: Tensor | None, other: Tensor) -> bool:
    return one is not None and bool((one - other).abs().max() <= _TOLERANCE * other.std())


def _register_flash() -> None:
    """A stand-in for flash attention, which is for GPUs alone: no mask, segments by the positions that it is given."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward
    from transformers.masking_utils import flash_attention_mask

    def attention(module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Any, **kwargs: Any) -> Any:
        positions = kwargs.get("position_ids")
        distance = torch.arange(query.shape[2])[:, None] - torch.arange(key.shape[2])
        allowed = (distance >= 0)[None]
        if kwargs.get("sliding_window"):
            allowed = allowed & (distance < kwargs["sliding_window"])
        if positions is not None and len(positions) == 1:
            segments = (positions == 0).cumsum(1)
            allowed = allowed & (segments.unsqueeze(2) == segments.unsqueeze(1))
        if mask is not None:
            allowed = allowed & mask[:, None, :].bool()
        return sdpa_attention_forward(module, query, key, value, allowed.unsqueeze(1), scaling=kwargs.get("scaling"))

    AttentionInterface.register(_FLASH, attention)
    AttentionMaskInterface.register(_FLASH, flash_attention_mask)
