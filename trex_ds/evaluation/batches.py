"""Which prompts may share a batch: in most architectures any, since padding in front of a row changes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from trex_ds.modeling.rows import rows_of


def may_be_padded(model: Any) -> bool:
    """Whether the rows of a batch may have different lengths; a state that is carried over padding forbids it.

    Args:
        model: bare or adapted; one that is no transformers model is taken to allow it.
    """
    config = getattr(model, "config", None)
    if not hasattr(config, "model_type"):
        return True
    rows = rows_of(config, getattr(config, "_attn_implementation", None) or "eager")
    return rows.left_padding


def same_length_groups(model: Any, rows: Sequence[Sequence[int]]) -> list[list[int]]:
    """Positions of rows that may share a batch; all in one group where rows may be padded."""
    if may_be_padded(model):
        return [list(range(len(rows)))]
    groups: dict[int, list[int]] = {}
    for position, row in enumerate(rows):
        groups.setdefault(len(row), []).append(position)
    return list(groups.values())
