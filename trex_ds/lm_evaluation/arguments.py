"""The command line of `trex-ds eval`, checked whole before anything is loaded."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from trex_ds.adapter_folder import AdapterFolder
from trex_ds.config import read_flags, section
from trex_ds.files import make_writable
from trex_ds.modeling.config import ModelConfig
from trex_ds.tasks.harness.index import name_problem, refusal

_CANNOT_ASK = "answers by task (poly, mhr), and lm-evaluation-harness does not tell of which task a question is"


@section
class EvaluationOptions:
    """What to evaluate, on what, and where to write."""

    tasks: str
    """Comma-separated tasks, groups or tags of lm-eval."""
    adapter: str | None = None
    """The adapter/ folder of a training run; it names its base model itself."""
    model: str | None = None
    """A base model: a folder, a hub id, or embedded:smollm2-135m-instruct; with adapter: its base model, if that is
    no longer where it was."""
    lora: str | None = None
    """The folder of a PEFT adapter for model."""
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    """Type of the weights of model, where there is no adapter."""
    no_base: bool = False
    """Do not evaluate the base model beside the adapter."""
    limit: int | None = None
    """Evaluate only this many items of each task, the first ones; null: all."""
    num_fewshot: int | None = None
    """Solved examples before each item; null: as the task says."""
    batch_size: int = 16
    """Rows of a forward pass on each process."""
    apply_chat_template: bool = False
    """Put prompts into the model's chat template."""
    mirror: str | None = None
    """A folder whose <hub id> subfolders stand in for hub datasets."""
    output: Path = Path("runs/evaluation")
    """Folder for the results."""

    @property
    def task_names(self) -> tuple[str, ...]:
        """Each of the tasks once."""
        return tuple(dict.fromkeys(name.strip() for name in self.tasks.split(",") if name.strip()))

    @property
    def base_model(self) -> ModelConfig | None:
        """The base model that is named."""
        return ModelConfig(self.model, dtype=self.dtype) if self.model else None

    def problems(self) -> list[str]:
        """Models, tasks and folders that cannot be used, or not together."""
        found = _model_problems(self)
        if not self.task_names:
            found.append("tasks: names none; give some, as --tasks boolq,winogrande")
        found += [f"tasks: {problem}" for name in self.task_names if (problem := name_problem(name) or refusal(name))]
        # Not by their types, because a section whose types are wrong says nothing more.
        for name, least in {"limit": 1, "num_fewshot": 0, "batch_size": 1}.items():
            value = getattr(self, name)
            if value is not None and value < least:
                found.append(f"{name}: must be at least {least}, got {value}")
        if int(os.environ.get("RANK", "0")) == 0:  # which alone writes
            try:
                make_writable(self.output)
            except OSError as error:
                found.append(f"output: {self.output} cannot be written to: {error}; name another folder")
        if self.mirror is not None and not Path(self.mirror).is_dir():
            found.append(f"mirror: no folder {self.mirror!r} in {Path.cwd()}")
        return found


def parse(argv: Sequence[str], description: str | None) -> EvaluationOptions:
    """Read a command line.

    Raises:
        ConfigError: with all that is wrong.
    """
    return read_flags(EvaluationOptions, argv, description)


def _model_problems(options: EvaluationOptions) -> list[str]:
    model = options.base_model
    if options.adapter is not None:
        found = [] if model is None else _base_problems(model)
        if options.lora is not None:
            found.append("lora: not together with --adapter; give one of the two")
        adapter = AdapterFolder(Path(options.adapter))
        if problem := adapter.problem():
            found.append(f"adapter: {problem}")
        if adapter.answers_by_task:
            ask = "ask it with trex-ds answer --task NAME"
            found.append(f"adapter: {options.adapter} {_CANNOT_ASK}; {ask}")
        return found
    if model is None:
        beside_lora = " (--lora needs the --model that it was trained on)" if options.lora else ""
        return [f"--adapter or --model: one of them is needed{beside_lora}"]
    found = _base_problems(model)
    if options.lora is not None:
        lora = AdapterFolder(Path(options.lora))
        if problem := lora.problem(peft_only=True):
            found.append(f"lora: {problem}")
        if lora.is_trex:
            found.append(f"lora: {options.lora} holds a T-REX adapter; give it as --adapter, without --model")
        if lora.answers_by_task:
            found.append(f"lora: {options.lora} {_CANNOT_ASK}; give an adapter of another method")
    return found


def _base_problems(model: ModelConfig) -> list[str]:
    return [f"model: {problem.removeprefix('name: ')}" for problem in model.problems_here()]
