"""What a training says while it goes on."""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback

from trex_ds.progress import Progress


class StepLines(TrainerCallback):
    """A line for each step that is logged, and a bar on a terminal; of the first rank."""

    def __init__(self) -> None:
        self._bar: Progress | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Begin the bar, where a resumed job goes on."""
        shown = state.is_world_process_zero
        settings = {"total": state.max_steps, "initial": state.global_step, "desc": "training", "unit": " steps"}
        self._bar = Progress(shown=shown, **settings)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Count the step."""
        if self._bar is not None:
            self._bar.update()

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        """Print loss, learning rate and speed."""
        if state.is_world_process_zero and logs and "loss" in logs:
            Progress.write(
                f"step {state.global_step} of {state.max_steps}: loss {logs['loss']:.4f}, learning rate "
                f"{logs['learning_rate']:.2e}, {logs['tokens_per_second']:,.0f} tokens/s"
            )

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.close()
