"""What a job does between the steps of its trainer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from transformers import TrainerCallback

from trex_ds.modeling.held import reset_peak
from trex_ds.training.measuring import Measurements
from trex_ds.training.memory_record import MemoryRecord
from trex_ds.training.trainer import TRexTrainer


class ReportCallback(TrainerCallback):
    """Hands what is logged of a step to `report`, with the names that a tracker has for it."""

    def __init__(self, report: Callable[[dict[str, float], int], None]):
        self.report = report

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Have the last step logged, so that a short training has a time and a divergence at its end is seen."""
        if state.global_step >= state.max_steps:
            control.should_log = True

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        """Pass the step logs on."""
        if logs and "loss" in logs:
            self.report({f"train/{k}": v for k, v in logs.items() if k != "epoch"}, state.global_step)


class JobCallback(TrainerCallback):
    """Evaluates on schedule and measures memory."""

    def __init__(self, trainer: TRexTrainer, measurements: Measurements, every: int | None, memory: MemoryRecord):
        self.trainer = trainer
        self.measurements = measurements
        self.every = every
        self.memory = memory
        self._first_step: int | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Measure the base model, on the prepared (sharded) model, before the first step."""
        if state.global_step == 0:
            self.measurements.base()
        reset_peak()  # answering with whole weights takes more than training
        self._first_step = state.global_step + 1
        self.trainer.reset_token_clock()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Measure every N steps; the last step is measured by the job."""
        if state.global_step == self._first_step:
            engine = self.trainer.model_wrapped
            optimizer = getattr(engine.optimizer, "optimizer", engine.optimizer)  # ZeRO wraps torch's
            self.memory.take("after the first step", engine.module, state.global_step, optimizer)
        if self.every and state.global_step % self.every == 0 and state.global_step < state.max_steps:
            self.measurements.held_out(state.global_step)
