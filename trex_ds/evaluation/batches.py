"""Batches of prompts: of like length, and of one length where an architecture sees padding."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from trex_ds.modeling.rows import rows_of
from trex_ds.protocols import CausalLM


def may_be_padded(model: CausalLM) -> bool:
    """Whether rows of a batch may have different lengths; a state that is carried over padding forbids it.

    Args:
        model: bare or adapted; one that is no transformers model is taken to allow it.
    """
    config = getattr(model, "config", None)
    if not hasattr(config, "model_type"):
        return True
    return rows_of(config, getattr(config, "_attn_implementation", None) or "eager").left_padding


def length_batches(model: CausalLM, rows: Sequence[Sequence[int]], batch_size: int) -> list[list[int]]:
    """Positions of `rows` in batches of at most `batch_size`; the longest first, so that too large a batch fails soon.

    Args:
        model: that takes them.
        rows: token ids.
        batch_size: rows of a batch at most.
    """
    order = sorted(range(len(rows)), key=lambda i: (-len(rows[i]), i))
    groups = [order] if may_be_padded(model) else [list(own) for _, own in groupby(order, lambda i: len(rows[i]))]
    return [own[start : start + batch_size] for own in groups for start in range(0, len(own), batch_size)]
