"""The `evaluation` section of a recipe."""

from __future__ import annotations

from pydantic import PositiveInt

from trex_ds.config import section


@section
class EvaluationConfig:
    """Measurement of accuracy: when and how."""

    batch_size: PositiveInt = 16
    """Prompts a rank answers at a time."""
    max_new_tokens: PositiveInt = 32
    """Longest answer; a longer one is cut and scored as it is. lm_eval tasks have their own."""
    every: PositiveInt | None = None
    """Steps between evaluations while training, on examples held out of the training data; the adapter with the best
    mean is kept. null: only before and after, and the last adapter is kept."""
    held_out: PositiveInt = 32
    """Training examples of each task that are held out for `every`, but never more than a tenth of them."""
    gather_weights: bool = False
    """Keep, under ZeRO-3, the whole model on every rank while answering: many times faster where it fits."""
