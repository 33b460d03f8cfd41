"""Ways to train a recipe on a machine: what each needs, whether it fits, and how fast it would be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from trex_ds.methods.limits import ZERO3
from trex_ds.planning.config import PlannedRecipe
from trex_ds.planning.gathers import Gathers, replay
from trex_ds.planning.memory import Memory, memory
from trex_ds.planning.meta_model import meta_model
from trex_ds.planning.settings import ZeroSettings, alternatives
from trex_ds.planning.step_profile import StepProfile, profile
from trex_ds.planning.traffic import Traffic, traffic

GIB = 2**30
# Speeds that differ by less are the same to an estimate like this.
SAME_SPEED = 0.95


@dataclass(frozen=True)
class Candidate:
    """One way to train."""

    settings: ZeroSettings
    checkpointing: bool
    micro_batch: int
    memory: Memory
    traffic: Traffic
    problem: str | None
    """Why it does not fit, or None."""
    compute_seconds: float
    """Seconds of an optimizer step, at the assumed rate of products."""
    waiting_seconds: float
    """Seconds of an optimizer step, for bytes at the assumed bandwidths that no computation hides."""
    tokens_per_second: float
    """Tokens a second, over all ranks."""


def as_fast_as_any(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Plans that fit and are as fast as any that does, as far as an estimate can tell."""
    fitting = [c for c in candidates if c.problem is None]
    best = max((c.tokens_per_second for c in fitting), default=0.0)
    return [c for c in fitting if c.tokens_per_second >= SAME_SPEED * best]


def recommend(candidates: Sequence[Candidate]) -> Candidate | None:
    """Choose among the fastest: one that offloads nothing and has the first one's configuration, if any does."""
    return min(
        as_fast_as_any(candidates),
        key=lambda c: (c.settings.offloads, c.settings is not candidates[0].settings, c.memory.peak),
        default=None,
    )


class Planner:
    """Plans for one recipe and machine; the model is made once, and each pass recorded once."""

    def __init__(self, recipe: PlannedRecipe):
        self.recipe = recipe
        self._profiles: dict[bool, StepProfile] = {}
        self._gathers: dict[tuple[Any, ...], Gathers] = {}

    @cached_property
    def model(self) -> Any:
        """The adapted model on the meta device."""
        return meta_model(self.recipe)

    @cached_property
    def settings(self) -> list[ZeroSettings]:
        """The recipe's DeepSpeed configuration, then those beside it that the method allows."""
        found = alternatives(self.recipe.training.deepspeed, self.recipe.model.dtype == "bfloat16", self.model)
        return [settings for settings in found if not (settings.stage == 3 and ZERO3 in self.recipe.adapter.refuses)]

    def as_written(self) -> Candidate:
        """The recipe as it is."""
        training = self.recipe.training
        return self.candidate(self.settings[0], training.gradient_checkpointing, training.micro_batch_size)

    def best_of_each(self) -> list[Candidate]:
        """Plans by configuration, with and without checkpointing: the least rows at the best speed; one if none fit."""
        return [self._best(settings, checkpointing) for settings in self.settings for checkpointing in (False, True)]

    def _best(self, settings: ZeroSettings, checkpointing: bool) -> Candidate:
        tried = [self.candidate(settings, checkpointing, 1)]
        while tried[-1].problem is None and 2 * tried[-1].micro_batch <= self.recipe.largest_micro_batch:
            tried.append(self.candidate(settings, checkpointing, 2 * tried[-1].micro_batch))
        return next(iter(as_fast_as_any(tried)), tried[0])

    def candidate(self, settings: ZeroSettings, checkpointing: bool, micro_batch: int) -> Candidate:
        """Plan one way to train."""
        step = self._profile(checkpointing)
        gathers = self._replayed(settings, checkpointing) if settings.stage == 3 else None
        world = self.recipe.world
        needed = memory(self.model, step, settings, world, micro_batch, gathers)
        sent = traffic(self.model, settings, world, gathers)
        compute, waiting = self._seconds(step, settings, sent, micro_batch)
        passes = self.recipe.training.gradient_accumulation_steps
        tokens = world * micro_batch * self.recipe.data.max_length * passes
        problem = self._problem(needed)
        return Candidate(
            settings, checkpointing, micro_batch, needed, sent, problem, compute, waiting, tokens / (compute + waiting)
        )

    def _profile(self, checkpointing: bool) -> StepProfile:
        if checkpointing not in self._profiles:
            length = self.recipe.data.max_length
            answers = max(1, round(length * self.recipe.assumptions.answer_share))
            self._profiles[checkpointing] = profile(
                self.model, length, answers, checkpointing, self.recipe.model.attention
            )
        return self._profiles[checkpointing]

    def _replayed(self, settings: ZeroSettings, checkpointing: bool) -> Gathers:
        zero = settings.zero
        key = (
            checkpointing,
            zero.prefetch_bucket_size,
            zero.param_persistence_threshold,
            zero.model_persistence_threshold,
            zero.max_live_parameters,
            zero.max_reuse_distance,
            settings.weights_on == "device",
        )
        if key not in self._gathers:
            passes = self.recipe.training.gradient_accumulation_steps
            self._gathers[key] = replay(self.model, self._profile(checkpointing), zero, self.recipe.world, passes)
        return self._gathers[key]

    def _problem(self, needed: Memory) -> str | None:
        recipe = self.recipe
        device = needed.peak / GIB + recipe.assumptions.cuda_memory
        usable = recipe.gpu_memory * (1 - recipe.assumptions.free_share)
        if device > usable:
            return f"{device - usable:.1f} GiB too large"
        host = sum(needed.cpu.values()) * recipe.gpus / GIB
        if recipe.cpu_memory is not None and host > recipe.cpu_memory:
            return f"{host - recipe.cpu_memory:.1f} GiB too large for the CPU's memory"
        return None

    def _seconds(
        self, step: StepProfile, settings: ZeroSettings, sent: Traffic, micro_batch: int
    ) -> tuple[float, float]:
        """Seconds of an optimizer step: computing, and waiting beside it."""
        given, passes = self.recipe.assumptions, self.recipe.training.gradient_accumulation_steps
        link = (given.node_bandwidth if self.recipe.nodes == 1 else given.network_bandwidth) * 1e9
        call, host = given.call_microseconds * 1e-6, given.host_bandwidth * 1e9
        away = given.disk_bandwidth * 1e9 / self.recipe.gpus if settings.weights_on == "nvme" else host
        compute = step.flops * micro_batch / (given.tflops * 1e12)
        moving = (sent.gather_bytes + sent.reduce_bytes) / link + sent.gather_calls * call + sent.host_bytes / away
        # Without overlap_comm DeepSpeed gathers on the stream that computes.
        waiting = max(0.0, moving - compute) if settings.zero.overlap_comm else moving
        after = sent.step_bytes / link + sent.step_calls * call + sent.host_step_bytes / host
        return compute * passes, waiting * passes + after
