"""The choice of examples that are not trained on: those of evaluation prompts, those held out, and those left out."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np

from trex_ds.data.epochs import held_out_positions, without
from trex_ds.data.store import Store
from trex_ds.distributed import rank

log = logging.getLogger(__name__)

# Fixed, so that every seed of a recipe leaves out the same.
_LEFT_OUT_SEED = 20_240_408


@dataclass(frozen=True)
class Split:
    """Places of training examples in the store, int64; the three parts have no prompt in common."""

    trained: dict[str, np.ndarray]
    """What each task is trained on; tasks without any are absent."""
    held_out: np.ndarray
    """What accuracy is measured on while training."""
    left_out: np.ndarray
    """What no seed trains on, and a comparison chooses learning rates by."""


def split(store: Store, *, held_out: int, left_out: int, seed: int) -> Split:
    """Divide the training examples.

    Args:
        store: all examples.
        held_out: examples of each task to hold out at most; 0 for none.
        left_out: examples of each task to leave out at most; 0 for none.
        seed: of the choice of what is held out.

    Raises:
        ValueError: nothing is left to train on, or there is nothing to hold or to leave out.
    """
    trained = _beside_evaluation(store)
    trained, left = _hold_out(trained, store, left_out, _LEFT_OUT_SEED)
    if left_out and not len(left):
        raise ValueError(
            "data.left_out: there is nothing to leave out: no task has 10 distinct training prompts; set it to 0, or "
            "add data"
        )
    trained, held = _hold_out(trained, store, held_out, seed)
    if held_out and not len(held):
        raise ValueError(
            "evaluation.every: there is nothing to evaluate while training: no task has 10 distinct training prompts, "
            "of which one could be held out; set it to null, or add data"
        )
    return Split(trained, held, left)


def _beside_evaluation(store: Store) -> dict[str, np.ndarray]:
    """Positions of each task's training examples, without those whose prompts are evaluated on."""
    evaluation = store.evaluation.data.column("digest").to_numpy()
    found: dict[str, np.ndarray] = {}
    for name, counts in store.counts.items():
        own = store.positions(name)
        kept = without(own, store.digests, evaluation)
        if len(kept) < len(own) and rank() == 0:
            log.info("task %s: left out %d training examples with an evaluation prompt", name, len(own) - len(kept))
        if not len(kept):
            if counts["train"]:
                raise ValueError(f"task {name!r}: all {len(own)} training examples have prompts of the evaluation")
            continue
        found[name] = kept
    if not found:
        raise ValueError("tasks: none has training examples; give one train_examples other than 0")
    return found


def _hold_out(
    positions: dict[str, np.ndarray], store: Store, count: int, seed: int
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """`positions` without at most `count` examples of each task, and these."""
    held = np.concatenate([held_out_positions(own, store.digests, count, seed) for own in positions.values()])
    # Of all tasks at once, because a prompt may occur in several.
    positions = {name: without(own, store.digests, store.digests[held]) for name, own in positions.items()}
    return {name: own for name, own in positions.items() if len(own)}, held
