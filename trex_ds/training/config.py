"""The `training` section of a recipe."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from trex_ds.config import section
from trex_ds.packaged import DEEPSPEED_CONFIGS, deepspeed_file, not_found


@section
class TrainingConfig:
    """The optimization, run by transformers' Trainer with DeepSpeed."""

    deepspeed: str = "zero3_bf16"
    """DeepSpeed configuration: one of this package by its name, or a file; its values "auto" are filled from this
    section."""
    max_steps: PositiveInt | None = None
    """Optimizer steps; null: as many as `epochs` takes."""
    epochs: PositiveFloat = 1.0
    """Passes over the mixture, where max_steps is null."""
    learning_rate: PositiveFloat = 5e-5
    """Peak learning rate."""
    lr_scheduler: Literal["cosine", "linear", "constant", "constant_with_warmup"] = "cosine"
    """Shape of the learning rate after the warm-up."""
    warmup_steps: NonNegativeInt = 0
    """Steps of linear warm-up."""
    micro_batch_size: PositiveInt = 1
    """Rows per forward pass on each rank."""
    gradient_accumulation_steps: PositiveInt = 1
    """Forward passes per optimizer step on each rank."""
    weight_decay: NonNegativeFloat = 0.0
    """AdamW's weight decay."""
    max_grad_norm: PositiveFloat = 1.0
    """Gradients are clipped to this norm."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, more time."""
    log_every: PositiveInt = 10
    """Steps between logged losses."""
    save_every: PositiveInt | None = None
    """Steps between checkpoints; null: only the final adapter is saved."""
    resume: bool = False
    """Resume from the latest checkpoint in output_dir."""
    resume_with_other_data: bool = False
    """Resume even if the examples, their tokens or their order are not those that the checkpoint was trained on."""
    timeout_minutes: PositiveFloat = 2.0
    """How long a rank may be silent, or a collective of the training take, before the job is ended."""

    def problems(self) -> list[str]:
        """A setting without effect, and a DeepSpeed configuration that cannot be read or trains in fp16."""
        found = []
        if self.resume_with_other_data and not self.resume:
            found.append("resume_with_other_data: has no effect without resume: true; set that, or remove this")
        try:
            config = self._read_deepspeed()
        except ValueError as error:
            return [*found, f"deepspeed: {error}"]
        if (config.get("fp16") or {}).get("enabled"):
            found.append(
                f"deepspeed: {self.deepspeed} has fp16 enabled; models are trained in bf16 or float32 here: remove it"
            )
        return found

    def problems_here(self) -> list[str]:
        """A folder for offloaded weights that this machine does not have."""
        for part in ("offload_param", "offload_optimizer"):
            offload = self.zero_optimization.get(part) or {}
            folder = offload.get("nvme_path")
            if offload.get("device") == "nvme" and not (folder and Path(folder).is_dir()):
                return [
                    f"deepspeed: {self.deepspeed} has zero_optimization.{part}.nvme_path: {folder!r}, which is not a "
                    "folder of this machine; write the folder of a local disk there"
                ]
        return []

    @property
    def deepspeed_config(self) -> dict[str, Any]:
        """The contents of the file that `deepspeed` names; empty if it cannot be read, which is a problem."""
        try:
            return self._read_deepspeed()
        except ValueError:
            return {}

    @property
    def zero_optimization(self) -> dict[str, Any]:
        """The DeepSpeed configuration's section of this name, which may be empty."""
        return self.deepspeed_config.get("zero_optimization") or {}

    def _read_deepspeed(self) -> dict[str, Any]:
        path = deepspeed_file(self.deepspeed)
        if not path.is_file():
            raise ValueError(not_found(self.deepspeed, DEEPSPEED_CONFIGS))
        try:
            config = json.loads(path.read_text(encoding="utf-8"))
        except json.JSONDecodeError as error:
            raise ValueError(f"{self.deepspeed} is not JSON: line {error.lineno}: {error.msg}") from error
        if not isinstance(config, dict):
            raise ValueError(f"{self.deepspeed} is not a DeepSpeed configuration: it holds no JSON object")
        return config
