"""Whether a model trains or is evaluated."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from trex_ds.protocols import Module


@contextmanager
def evaluation_mode(model: Module) -> Iterator[None]:
    """Evaluate the model within the block, and leave it in the mode that it was in."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)
