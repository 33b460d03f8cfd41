"""The choice of a method's learning rate: short trainings, judged by the loss on what no run trains on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from trex_ds.data.collator import Collator
from trex_ds.data.encoding import IGNORED_LABEL
from trex_ds.distributed import rank, sum_over_ranks
from trex_ds.evaluation.dealing import deal
from trex_ds.modeling.mode import evaluation_mode
from trex_ds.modeling.zero3 import own_sharding
from trex_ds.tracking.tracker import Tracker
from trex_ds.training.callbacks import ReportCallback
from trex_ds.training.job import Context, build_model, log_origin, make_trainer, training_arguments
from trex_ds.training.prepared import Prepared, prepare
from trex_ds.training.recipe import Recipe
from trex_ds.training.trainer import TRexTrainer


@dataclass(frozen=True)
class Choice:
    """A method's learning rate, and how it was found."""

    learning_rate: float
    losses: Mapping[float, float | None]
    """Loss on the left-out examples by candidate; None: its training failed."""
    warning: str | None = None
    errors: Mapping[float, str] = field(default_factory=dict)
    """Why the training with a candidate failed."""


def choose(losses: Mapping[float, float | None], errors: Mapping[float, str]) -> Choice:
    """The candidate of least loss.

    Args:
        losses: by candidate; None: its training failed.
        errors: of those that failed.

    Raises:
        ValueError: if no candidate has a loss, with the errors.
    """
    found = {rate: loss for rate, loss in losses.items() if loss is not None and math.isfinite(loss)}
    if not found:
        reasons = "; ".join(f"{rate:g}: {error}" for rate, error in errors.items())
        raise ValueError(f"no learning rate could be chosen: the training with each candidate failed: {reasons}")
    best = min(found, key=lambda rate: found[rate])
    warning = None
    if best in (min(losses), max(losses)):
        side, more = ("smallest", "smaller") if best == min(losses) else ("largest", "larger")
        warning = f"the learning rate chosen, {best:g}, is the {side} candidate: a {more} one may be better"
    return Choice(best, losses, warning, errors)


def tuning_run(recipe: Recipe, device: torch.device, context: Context) -> float:
    """Train as `recipe` says, and return the loss on its left-out examples; a collective. Keeps no adapter.

    Raises:
        FloatingPointError: the loss is not finite.
    """
    tracker = Tracker(recipe.tracking, recipe.output_dir, enabled=rank() == 0, parent=context.parent)
    with own_sharding():
        prepared = prepare(recipe, device)
        with tracker:
            return _train(recipe, prepared, device, tracker, context)


def _train(recipe: Recipe, prepared: Prepared, device: torch.device, tracker: Tracker, context: Context) -> float:
    log_origin(tracker, recipe, context)
    arguments = training_arguments(recipe)
    model = build_model(recipe, prepared.centroids, prepared.tasks)
    trainer = make_trainer(recipe, prepared, model, arguments)
    trainer.add_callback(ReportCallback(tracker.log_metrics))
    trainer.train()
    collator = Collator(prepared.tokenizer.pad_token_id)
    loss = mean_loss(trainer, prepared.left_out, collator, recipe.evaluation.batch_size)
    tracker.log_metrics({"left_out/loss": loss}, trainer.state.global_step)
    if not math.isfinite(loss):
        raise FloatingPointError(f"the loss on the left-out examples is {loss}: training has diverged")
    return loss


@torch.no_grad()
def mean_loss(trainer: TRexTrainer, items: Any, collator: Collator, batch_size: int) -> float:
    """Cross-entropy of an answer's token, the mean over those of all `items`; a collective."""
    batches = [range(start, min(start + batch_size, len(items))) for start in range(0, len(items), batch_size)]

    def loss_of(batch: range) -> Tensor:
        inputs = trainer._prepare_inputs(collator([items[i] for i in batch]))
        predicted = (inputs["labels"][:, 1:] != IGNORED_LABEL).sum()
        # The sum, not the mean; the trainer multiplies by the ranks, over which DeepSpeed averages gradients.
        loss = trainer.compute_loss(trainer.model, inputs, num_items_in_batch=1) / trainer.accelerator.num_processes
        return torch.stack([loss.double(), predicted.double()])

    sums = torch.zeros(2, dtype=torch.float64, device=trainer.args.device)
    with evaluation_mode(trainer.model):
        for own in deal(batches, loss_of, "loss on what is left out").values():
            sums += own
    total, tokens = sum_over_ranks(sums).tolist()
    return total / tokens
