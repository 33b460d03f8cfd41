"""The recipe of a training job: every section, and the checks that need more than one of them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import Field, NonNegativeInt

from trex_ds.config import section
from trex_ds.data.config import DataConfig
from trex_ds.evaluation.config import EvaluationConfig
from trex_ds.intuition.config import IntuitionConfig
from trex_ds.intuition.saved import centroids_file, saved_num_clusters
from trex_ds.methods.config import AdapterConfig, default_adapter
from trex_ds.methods.limits import BFLOAT16, CHECKPOINTING, FOUR_BITS, HELD_OUT, PACKING, RESUMING, ZERO, ZERO3
from trex_ds.modeling.config import ModelConfig
from trex_ds.tasks.config import TaskConfig
from trex_ds.tracking.settings import TrackingConfig
from trex_ds.training.config import TrainingConfig

# Keys of DeepSpeed's zero_optimization.
_CHANGE_WEIGHTS = ("zero_quantized_weights", "zero_quantized_nontrainable_weights", "use_all_reduce_for_fetch_params")


@section
class Recipe:
    """A training job from tasks to a saved adapter."""

    output_dir: str
    """Folder for the adapter, checkpoints, evaluations and metrics."""
    tasks: Annotated[list[TaskConfig], Field(min_length=1)]
    """Sources of examples, and how often each is seen."""
    seed: NonNegativeInt = 0
    """Seed of the adapter's initialization, of the mixture and of the order of the data."""
    model: ModelConfig = Field(default_factory=ModelConfig)
    """The frozen base model."""
    adapter: AdapterConfig = Field(default_factory=default_adapter)
    """How the base model is adapted: T-REX, or another `method`."""
    intuition: IntuitionConfig = Field(default_factory=IntuitionConfig)
    """The intuition pass."""
    data: DataConfig = Field(default_factory=DataConfig)
    """How examples become tokens."""
    training: TrainingConfig = Field(default_factory=TrainingConfig)
    """The optimization."""
    evaluation: EvaluationConfig = Field(default_factory=EvaluationConfig)
    """Accuracy per task."""
    tracking: TrackingConfig = Field(default_factory=TrackingConfig)
    """MLflow."""

    checked_here: ClassVar[tuple[str, ...]] = ("model", "training")
    """Sections whose `problems_here` matter."""

    def job(self, **changes: Any) -> Recipe:
        """A recipe of a training alone, with this one's sections and values but for `changes`."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(Recipe)}
        return Recipe(**{**values, **changes})

    def problems(self) -> list[str]:
        """Values of several sections that cannot work together."""
        return [*self._problems_of_deepspeed(), *self._problems_of_method()]

    def problems_here(self) -> list[str]:
        """What the recipe names and this machine lacks, and what an earlier run has left in `output_dir`."""
        return [*self.input_problems(), *self.output_problems()]

    def input_problems(self) -> list[str]:
        """Weights that cannot be quantized here, and centroids that do not fit."""
        problem = self.model.quantization_problem()
        return [*([f"model.quantization: {problem}"] if problem else []), *self.centroids_problems()]

    def centroids_problems(self) -> list[str]:
        """Centroids that cannot be read, or of another number than the adapter takes."""
        if self.intuition.centroids is None or self.adapter.problems() or not self.adapter.needs_intuition:
            return []
        try:
            file = centroids_file(self.intuition.centroids)
            count = saved_num_clusters(file)
            if count not in (None, self.adapter.num_clusters):
                return [
                    f"intuition.centroids: {self.intuition.centroids} has {count} clusters but "
                    f"adapter.num_clusters is {self.adapter.num_clusters}"
                ]
            from trex_ds.intuition.centroids import Centroids  # with torch, to look at all of the file

            Centroids.load(file)
        except (FileNotFoundError, ValueError) as error:
            return [f"intuition.centroids: {error}"]
        return []

    def output_problems(self) -> list[str]:
        """Checkpoints in `output_dir` that the job would not resume from, or none where it should."""
        checkpoints = sorted(Path(self.output_dir).glob("checkpoint-*"))
        if self.training.resume and not checkpoints:
            return [f"training.resume: {self.output_dir!r} holds no checkpoint to resume from"]
        if checkpoints and not self.training.resume:
            return [
                f"output_dir: {self.output_dir!r} holds {checkpoints[-1].name} of an earlier run; resume from it with "
                "--training.resume true, or choose another output_dir"
            ]
        return []

    def _problems_of_deepspeed(self) -> list[str]:
        """A DeepSpeed configuration that contradicts the model's section."""
        found = []
        file, config = self.training.deepspeed, self.training.deepspeed_config
        bf16 = (config.get("bf16") or {}).get("enabled", False)
        if config and bf16 != "auto" and bf16 != (self.model.dtype == "bfloat16"):
            found.append(
                f"training.deepspeed: {file} has bf16.enabled: {str(bf16).lower()} but model.dtype is "
                f"{self.model.dtype}; change one of them"
            )
        zero = self.training.zero_optimization
        if self.model.quantization and (changing := [key for key in _CHANGE_WEIGHTS if zero.get(key)]):
            found.append(
                f"training.deepspeed: {file} has zero_optimization.{changing[0]}, which changes weights as they "
                "are gathered and would spoil those in 4 bits; remove it"
            )
        return found

    def _problems_of_method(self) -> list[str]:
        """What the method cannot be used with, each with the reason and the way out."""
        method, training = self.adapter.method, self.training
        stage = training.zero_optimization.get("stage", 0)
        used = {
            FOUR_BITS: ("model.quantization", self.model.quantization is not None, "set it to null"),
            ZERO3: ("training.deepspeed", stage == 3, "use a file with zero_optimization.stage 2 or less"),
            ZERO: ("training.deepspeed", stage != 0, "use a file with zero_optimization.stage 0"),
            BFLOAT16: ("model.dtype", self.model.dtype == "bfloat16", "use float32"),
            PACKING: ("data.packing", self.data.packing, "set it to false"),
            CHECKPOINTING: ("training.gradient_checkpointing", training.gradient_checkpointing, "set it to false"),
            HELD_OUT: ("evaluation.every", self.evaluation.every is not None, "set it to null"),
            RESUMING: ("training.save_every", training.save_every is not None or training.resume, "set it to null"),
        }
        found = []
        for limit, reason in self.adapter.refuses.items():
            where, is_used, way_out = used[limit]
            if is_used:
                found.append(
                    f"{where}: adapter.method {method} does not work with it: {reason}; {way_out}, or use lora"
                )
        if self.adapter.needs_tasks:
            found += [
                f"tasks.{number}.source: {task.source} is asked by lm-evaluation-harness, which does not tell of which "
                f"task a question is, as adapter.method {method} needs it; use another method"
                for number, task in enumerate(self.tasks)
                if task.source.startswith("lm_eval:")
            ]
        if training.max_steps is not None:
            found += [f"adapter.{line}" for line in self.adapter.problems_with_steps(training.max_steps)]
        return found
