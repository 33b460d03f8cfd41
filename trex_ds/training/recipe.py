"""The recipe of a training job: every section, and the checks that need more than one of them."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from trex_ds.adapters.sections import AdapterConfig, default_adapter
from trex_ds.config import section
from trex_ds.data.config import DataConfig
from trex_ds.evaluation.evaluate import EvaluationConfig
from trex_ds.intuition.centroids import Centroids
from trex_ds.intuition.clustering import IntuitionConfig
from trex_ds.modeling.base import ModelConfig
from trex_ds.packaged import DEEPSPEED_CONFIGS, deepspeed_file, not_found
from trex_ds.tasks.config import TaskConfig
from trex_ds.tracking.settings import TrackingConfig
from trex_ds.training.combinations import combination_problems

# Keys of DeepSpeed's zero_optimization.
_CHANGE_WEIGHTS = ("zero_quantized_weights", "zero_quantized_nontrainable_weights", "use_all_reduce_for_fetch_params")


@section
class TrainingConfig:
    """The optimisation, run by transformers' Trainer with DeepSpeed."""

    deepspeed: str = "zero3_bf16"
    """DeepSpeed configuration: one of this package by its name, or a file; its values "auto" are filled from this
    section."""
    max_steps: PositiveInt | None = None
    """Optimiser steps; null: as many as `epochs` takes."""
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
    """Forward passes per optimiser step on each rank."""
    weight_decay: NonNegativeFloat = 0.0
    """AdamW's weight decay."""
    max_grad_norm: PositiveFloat = 1.0
    """Gradients are clipped to this norm."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, more time."""
    log_every: PositiveInt = 10
    """Steps between logged losses."""
    save_every: PositiveInt | None = None
    """Steps between checkpoints; null: none but the final adapter."""
    resume: bool = False
    """Go on from the latest checkpoint in output_dir."""
    resume_with_other_data: bool = False
    """Go on also if the examples, their tokens or their order are not those that the checkpoint was trained on."""
    timeout_minutes: PositiveFloat = 2.0
    """How long a rank may be silent, or a collective of the training take, before the job is ended."""

    def problems(self) -> list[str]:
        """A DeepSpeed configuration that is not there, is no JSON, or could not save what it trains."""
        if self.resume_with_other_data and not self.resume:
            return ["resume_with_other_data: has no effect without resume: true; set that, or remove this"]
        path = deepspeed_file(self.deepspeed)
        if not path.is_file():
            return [f"deepspeed: {not_found(self.deepspeed, DEEPSPEED_CONFIGS)}"]
        try:
            config = json.loads(path.read_text(encoding="utf-8"))
        except json.JSONDecodeError as error:
            return [f"deepspeed: {self.deepspeed} is not JSON: line {error.lineno}: {error.msg}"]
        if (config.get("fp16") or {}).get("enabled"):
            return [
                f"deepspeed: {self.deepspeed} has fp16 enabled; models are trained in bf16 or float32 here: remove it"
            ]
        zero = config.get("zero_optimization") or {}
        for part in ("offload_param", "offload_optimizer"):
            offload = zero.get(part) or {}
            folder = offload.get("nvme_path")
            if offload.get("device") == "nvme" and not (folder and Path(folder).is_dir()):
                return [
                    f"deepspeed: {self.deepspeed} has zero_optimization.{part}.nvme_path: {folder!r}, which is not a "
                    "folder of this machine; write the folder of a local disk there"
                ]
        if zero.get("stage") == 3 and not zero.get("stage3_gather_16bit_weights_on_model_save"):
            return [
                f"deepspeed: {self.deepspeed} needs zero_optimization.stage3_gather_16bit_weights_on_model_save: true; "
                "without it the adapter cannot be saved"
            ]
        return []


@section
class Recipe:
    """A training job from tasks to a saved adapter."""

    output_dir: str
    """Folder for the adapter, checkpoints, evaluations and metrics."""
    tasks: Annotated[list[TaskConfig], Field(min_length=1)]
    """Where examples come from, and how often each is seen."""
    seed: NonNegativeInt = 0
    """Seed of the adapter's initialisation, of the mixture and of the order of the data."""
    model: ModelConfig = Field(default_factory=ModelConfig)
    """The frozen base model."""
    adapter: AdapterConfig = Field(default_factory=default_adapter)
    """How the base model is adapted: T-REX, or another `method`."""
    intuition: IntuitionConfig = Field(default_factory=IntuitionConfig)
    """The intuition pass."""
    data: DataConfig = Field(default_factory=DataConfig)
    """How examples become tokens."""
    training: TrainingConfig = Field(default_factory=TrainingConfig)
    """The optimisation."""
    evaluation: EvaluationConfig = Field(default_factory=EvaluationConfig)
    """Accuracy per task."""
    tracking: TrackingConfig = Field(default_factory=TrackingConfig)
    """MLflow."""

    def job(self, **changes: Any) -> Recipe:
        """A recipe of a training alone, with this one's sections and values but for `changes`."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(Recipe)}
        return Recipe(**{**values, **changes})

    def problems(self) -> list[str]:
        """What only several sections together show to be wrong."""
        found: list[str] = []
        config: dict[str, Any] = {}
        path = deepspeed_file(self.training.deepspeed)
        if path.is_file() and not self.training.problems():
            config = json.loads(path.read_text(encoding="utf-8"))
            bf16 = (config.get("bf16") or {}).get("enabled", False)
            if bf16 != "auto" and bf16 != (self.model.dtype == "bfloat16"):
                found.append(
                    f"training.deepspeed: {path} has bf16.enabled: {str(bf16).lower()} but model.dtype is "
                    f"{self.model.dtype}; change one of them"
                )
            zero = config.get("zero_optimization") or {}
            if self.model.quantization and (changing := [key for key in _CHANGE_WEIGHTS if zero.get(key)]):
                found.append(
                    f"training.deepspeed: {path} has zero_optimization.{changing[0]}, which changes weights as they "
                    "are gathered and would spoil those in 4 bits; remove it"
                )
        found += combination_problems(self, config)
        if self.intuition.centroids is not None and not self.adapter.problems() and self.adapter.needs_intuition:
            try:
                centroids = Centroids.load(self.intuition.centroids)
            except (FileNotFoundError, ValueError) as error:
                found.append(f"intuition.centroids: {error}")
            else:
                if centroids.num_clusters != self.adapter.num_clusters:
                    found.append(
                        f"intuition.centroids: {self.intuition.centroids} has {centroids.num_clusters} clusters but "
                        f"adapter.num_clusters is {self.adapter.num_clusters}"
                    )
        checkpoints = sorted(Path(self.output_dir).glob("checkpoint-*"))
        if self.training.resume and not checkpoints:
            found.append(f"training.resume: {self.output_dir!r} holds no checkpoint to go on from")
        if checkpoints and not self.training.resume:
            found.append(
                f"output_dir: {self.output_dir!r} holds {checkpoints[-1].name} of an earlier run; go on from it with "
                "--training.resume true, or choose another output_dir"
            )
        return found
