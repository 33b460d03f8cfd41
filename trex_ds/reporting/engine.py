"""One method's training, step by step: the Trainer's own engine, batches and step, run when asked to."""

from __future__ import annotations

import ctypes
import gc
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import torch
from accelerate.state import AcceleratorState
from torch import Tensor

from trex_ds.data.encoding import IGNORED_LABEL
from trex_ds.distributed import gather_objects, sum_over_ranks
from trex_ds.training import job
from trex_ds.training.prepared import Prepared
from trex_ds.training.recipe import Recipe
from trex_ds.training.trainer import TRexTrainer


class Batches:
    """What one optimizer step trains on: the micro batches of this rank, as the Trainer deals them."""

    def __init__(self, inputs: Sequence[dict[str, Tensor]], predicted: Any):
        self.inputs = inputs
        self.predicted = predicted
        """Tokens with a loss, on all ranks together."""

    def tokens(self) -> tuple[int, int, int]:
        """Padded, real and supervised tokens of the step, all ranks together; a collective."""
        own = [
            (one["attention_mask"].numel(), one["attention_mask"].sum(), (one["labels"] != IGNORED_LABEL).sum())
            for one in self.inputs
        ]
        padded, real, supervised = sum_over_ranks(torch.tensor([[int(n) for n in row] for row in own]).sum(0)).tolist()
        return padded, real, supervised


class SteppedTrainer(TRexTrainer):
    """A Trainer whose steps are taken one at a time, so that those of another can come in between.

    It does what `Trainer.train` does of a step that is not logged, saved or evaluated at.
    """

    def _build_accelerator_args(self, **kwargs: Any) -> dict[str, Any]:
        # accelerate keeps one DeepSpeed configuration a process, and takes it from the first of several trainers.
        given = super()._build_accelerator_args(**kwargs)
        return {**given, "deepspeed_plugin": None} if AcceleratorState._shared_state else given

    def start(self, most_steps: int) -> None:
        """Make the DeepSpeed engine; before the first step."""
        loader = self.get_train_dataloader()
        self._engine, self._loader = self._prepare_for_training(most_steps, loader, None)
        self._engine.train()
        self._rows = self._epochs()

    def next_batches(self) -> Batches:
        """Batches of the next step, starting over at the end of the data."""
        number = self.args.gradient_accumulation_steps
        inputs: list[dict[str, Tensor]] = []
        while len(inputs) < number:
            inputs.append(next(self._rows))
        # The Trainer's own count of what the step predicts, on all ranks.
        taken, predicted = self.get_batch_samples(iter(inputs), number, self.args.device)
        return Batches(taken, predicted)

    def take_step(self, batches: Batches) -> float:
        """One optimizer step; its seconds, of the rank that took longest. A collective."""
        _finish_queued()
        started = time.perf_counter()
        for number, inputs in enumerate(batches.inputs, 1):
            self.accelerator.gradient_state._set_sync_gradients(number == len(batches.inputs))
            self.training_step(self._engine, dict(inputs), batches.predicted)
        self.optimizer.step()
        self.lr_scheduler.step()
        self._engine.zero_grad()
        _finish_queued()
        return max(gather_objects(time.perf_counter() - started))

    def _epochs(self) -> Iterator[dict[str, Tensor]]:
        while True:
            yield from self._loader


def make_trainer(recipe: Recipe, adapter: Any, prepared: Prepared, arguments: Any, most_steps: int) -> SteppedTrainer:
    """A trainer of the recipe with another `adapter` section, ready for its first step; a collective.

    Args:
        recipe: the user's.
        adapter: what the base model is adapted by.
        prepared: the recipe's data.
        arguments: `training_arguments(recipe)`, the same for all trainers of the process.
        most_steps: how many steps the learning rate is scheduled for.
    """
    recipe = replace(recipe, adapter=adapter)
    model = job.build_model(recipe, prepared.centroids, prepared.tasks)
    trainer = job.make_trainer(recipe, prepared, model, arguments, kind=SteppedTrainer)
    assert isinstance(trainer, SteppedTrainer)
    trainer.start(most_steps)
    return trainer


def release(trainer: SteppedTrainer) -> None:
    """Free the memory of a trainer that is done.

    DeepSpeed's hooks are held by autograd's nodes, and these by the hooks, where no garbage collector looks. So
    the objects stay, and their tensors are emptied.
    """
    engine = trainer.model_wrapped
    engine.destroy()
    tensors = [*engine.parameters(), *_tensors_in(vars(engine.optimizer))]
    tensors += [p.ds_tensor for p in engine.parameters() if hasattr(p, "ds_tensor")]
    tensors += [p.grad for p in tensors if p.is_leaf and p.grad is not None]
    for tensor in tensors:
        tensor.data = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
    trainer.accelerator.free_memory()
    give_memory_back()


def _tensors_in(value: Any) -> Iterator[Tensor]:
    if torch.is_tensor(value):
        yield value
    elif isinstance(value, dict):
        for item in (*value, *value.values()):
            yield from _tensors_in(item)
    elif isinstance(value, list | tuple | set):
        for item in value:
            yield from _tensors_in(item)
    elif isinstance(value, torch.optim.Optimizer):
        yield from _tensors_in(value.state)


def give_memory_back() -> None:
    """Return unused memory to the system, so that it is not part of a later peak."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    with suppress(OSError, AttributeError):  # a C library other than glibc
        ctypes.CDLL(None).malloc_trim(0)


def _finish_queued() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
