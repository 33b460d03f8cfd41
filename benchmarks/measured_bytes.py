"""What a rank really holds and sends in a training step, counted tensor by tensor; to hold beside a plan."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.utils.data import Dataset

from trex_ds.data.collator import PackedCollator
from trex_ds.data.encoding import IGNORED_LABEL
from trex_ds.distributed import world_size
from trex_ds.intuition.centroids import placeholder_centroids
from trex_ds.launching.process_group import start_distributed
from trex_ds.planning.live_bytes import LiveBytes
from trex_ds.training.job import build_model, training_arguments
from trex_ds.training.recipe import Recipe
from trex_ds.training.trainer import TRexTrainer

# DeepSpeed looks ahead from its third pass on; the step after that is the one that is counted.
_STEPS_BEFORE = 3


def measure(recipe: Recipe, answers: int) -> dict[str, int]:
    """Train a few steps on rows of noise, each of `recipe.data.max_length` tokens, and count the last; a collective.

    Args:
        recipe: the job; its tasks are not looked at.
        answers: how many tokens of each row are predicted.

    Returns:
        Bytes of this rank, named as `predicted_bytes` names what is predicted.
    """
    from transformers.integrations.deepspeed import unset_hf_deepspeed_config

    start_distributed(recipe.training.timeout_minutes)
    unset_hf_deepspeed_config()
    recipe.training.max_steps = _STEPS_BEFORE + 1
    arguments = training_arguments(recipe)
    needs_intuition = recipe.adapter.needs_intuition
    centroids = placeholder_centroids(recipe.adapter.num_clusters) if needs_intuition else None
    model = build_model(recipe, centroids, [task.source for task in recipe.tasks])
    if recipe.training.gradient_checkpointing:
        model.enable_input_require_grads()
        model.gradient_checkpointing_enable()
    rows = world_size() * recipe.training.micro_batch_size * recipe.training.gradient_accumulation_steps
    trainer = _CountingTrainer(
        model=model,
        args=arguments,
        train_dataset=_Noise(recipe, answers, rows * (_STEPS_BEFORE + 1)),
        data_collator=PackedCollator(0, one_row="flash" in recipe.model.attention),
    )
    trainer.train()
    return trainer.counted


class _CountingTrainer(TRexTrainer):
    """Counts what the last step holds and sends."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.counted: dict[str, int] = {}
        self._tracker: LiveBytes | None = None

    def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
        loss = super().compute_loss(*args, **kwargs)
        if self._tracker is not None:
            self.counted["saved"] = self._tracker.live
        return loss

    def training_step(self, model: Any, inputs: dict[str, Tensor], *args: Any, **kwargs: Any) -> Tensor:
        if self.state.global_step < _STEPS_BEFORE:
            return super().training_step(model, inputs, *args, **kwargs)
        engine = self.model_wrapped
        self.counted |= _held(engine)
        gc.collect()
        with LiveBytes() as tracker, _counting_collectives() as sent:
            self._tracker, step = tracker, engine.step

            def counted_step(*args: Any, **kwargs: Any) -> Any:
                self.counted["peak of a pass"] = tracker.take_peak()
                self.counted |= {
                    "gather bytes": sent.gathered,
                    "gathers": sent.gathers,
                    "reduce bytes": sent.reduced,
                }
                sent.reset()
                result = step(*args, **kwargs)
                self.counted["peak of the optimizer"] = tracker.take_peak()
                self.counted |= {"step bytes": sent.gathered, "step gathers": sent.gathers}
                return result

            with mock.patch.object(engine, "step", counted_step):
                loss = super().training_step(model, inputs, *args, **kwargs)
        self._tracker = None
        return loss


class _Noise(Dataset[Any]):
    """Rows as a PackedSet has them, of two examples each, so that there is a mask."""

    def __init__(self, recipe: Recipe, answers: int, rows: int):
        length = recipe.data.max_length
        generator = torch.Generator().manual_seed(recipe.seed)
        self._ids = torch.randint(3, 64, (rows, length), generator=generator)
        clusters = recipe.adapter.num_clusters if recipe.adapter.needs_intuition else 0
        self._scores = torch.rand(rows, 2, clusters, generator=generator)
        self._labels = [IGNORED_LABEL] * (length - answers) + [1] * answers

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, index: int) -> list[dict[str, Any]]:
        ids, first = self._ids[index].tolist(), 2
        parts = slice(first), slice(first, None)
        return [
            {"input_ids": ids[part], "labels": self._labels[part]} | ({"intuition": scores} if len(scores) else {})
            for part, scores in zip(parts, self._scores[index], strict=True)
        ]


def _held(engine: Any) -> dict[str, int]:
    """Bytes of storages that this rank keeps between steps, by part."""
    parameters = list(engine.module.parameters())
    optimizer = engine.optimizer
    sharded = hasattr(parameters[0], "ds_tensor")
    states = [t for state in optimizer.optimizer.state.values() for t in state.values() if torch.is_tensor(t)]
    masters = optimizer.fp32_partitioned_groups_flat if sharded else optimizer.single_partition_of_fp32_groups
    buffers = [b for bucket in optimizer.ipg_buckets.values() for b in _tensors(bucket.buffer)]
    if sharded:
        buffers.append(optimizer.grad_partitions_flat_buffer)
    elif optimizer.cpu_offload:
        buffers += optimizer.param_buffer_of_bit16_for_cpu_offload_groups
    buffers += [m.grad for m in masters if m.grad is not None]
    frozen = [p for p in parameters if not p.requires_grad]
    trained = [p for p in parameters if p.requires_grad]
    parts = {
        "adapter": [t for p in trained for t in _copies(p)],
        "base": [t for p in frozen for t in _copies(p)],
        "optimizer": [*masters, *states],
        "gradients": buffers,
    }
    seen: set[int] = set()
    held = {}
    for part, tensors in parts.items():
        storages = {id(s): s.nbytes() for s in (t.untyped_storage() for t in tensors) if id(s) not in seen}
        seen |= set(storages)
        held[part] = sum(storages.values())
    return held


def _copies(parameter: Any) -> list[Tensor]:
    return [parameter.data, *([parameter.ds_tensor] if hasattr(parameter, "ds_tensor") else [])]


def _tensors(value: Any) -> list[Tensor]:
    return [t for t in (value if isinstance(value, list | tuple) else [value]) if torch.is_tensor(t)]


@dataclass
class _Sent:
    """Bytes that leave this rank in rings, and collectives."""

    gathered: int = 0
    gathers: int = 0
    reduced: int = 0

    def reset(self) -> None:
        self.gathered = self.gathers = self.reduced = 0


@contextmanager
def _counting_collectives() -> Iterator[_Sent]:
    """Count what DeepSpeed sends in the block."""
    from deepspeed.comm.torch import TorchBackend

    sent, world = _Sent(), world_size()

    def wrapped(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(self: Any, *args: Any, **kwargs: Any) -> Any:
            # The largest is what all ranks have together: a gather's output, a reduction's input.
            whole = max(sum(t.nbytes for t in _tensors(a)) for a in (*args, *kwargs.values()))
            size = whole * (world - 1) // world
            if "gather" in name:
                sent.gathered += size
                sent.gathers += 1
            else:
                sent.reduced += 2 * size if name == "all_reduce" else size
            return original(self, *args, **kwargs)

        return call

    names = ("all_gather_into_tensor", "all_gather", "reduce_scatter_tensor", "reduce_scatter", "all_reduce", "reduce")
    with ExitStack() as stack:
        for name in names:
            stack.enter_context(mock.patch.object(TorchBackend, name, wrapped(name, getattr(TorchBackend, name))))
        yield sent
