"""The main job: tasks -> intuition -> base model -> adapter -> training -> accuracy -> saved adapter."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from trex_ds.adapter_folder import ADAPTER_FOLDER, RECIPE_FILE, AdapterFolder
from trex_ds.adapters.hooks import hooks_of_model
from trex_ds.adapters.loading import adapt
from trex_ds.adapters.peft_config import peft_config
from trex_ds.config import flatten, to_dict
from trex_ds.distributed import on_rank_zero, rank
from trex_ds.evaluation.accuracy import Evaluation
from trex_ds.intuition.centroids import Centroids
from trex_ds.modeling.base import load_base_model
from trex_ds.modeling.held import BASE, trainable_parameters
from trex_ds.modeling.zero3 import own_sharding
from trex_ds.packaged import deepspeed_file
from trex_ds.preparation.seen_data import describe_data, write_data
from trex_ds.protocols import CausalLM
from trex_ds.tracking.origin import git_commit, recipe_hash
from trex_ds.tracking.tracker import Tracker
from trex_ds.training.callbacks import JobCallback, ReportCallback
from trex_ds.training.launched import launched
from trex_ds.training.measuring import Measurements
from trex_ds.training.memory_record import MemoryRecord
from trex_ds.training.prepared import Prepared, prepare
from trex_ds.training.recipe import Recipe
from trex_ds.training.saving import save_adapter, write_identity, write_tasks
from trex_ds.training.step_lines import StepLines
from trex_ds.training.summary import Summary, print_summary
from trex_ds.training.trainer import TRexTrainer


@dataclass(frozen=True)
class Context:
    """What a run belongs to; by default to nothing."""

    parent: Tracker | None = None
    """Tracker whose MLflow run has this run below it."""
    tags: Mapping[str, str] = field(default_factory=dict)
    """More MLflow tags; they win over the run's own."""
    base: Evaluation | None = None
    """The base model's answers, if they are known: it is not asked again."""


def train(recipe: Recipe) -> Summary:
    """Run the job that `recipe` describes; every rank of the launch calls it.

    Raises:
        ConfigError: for a problem that only the data or the machine shows.
    """
    with launched(recipe) as device:
        return run(recipe, device, Context())


def run(recipe: Recipe, device: torch.device, context: Context) -> Summary:
    """The job of `train` in a process group that exists, where it may be one of several; a collective.

    Writes to `recipe.output_dir`: the adapter with its centroids (`adapter/`), the resolved recipe,
    the evaluations with every answer (`evaluation_base.json`, `evaluation_<step>.json`),
    `metrics.jsonl`, `summary.json`, and checkpoints where asked for.

    Raises:
        ConfigError: for a problem that only the data or the machine shows.
        FloatingPointError: the loss is not finite.
    """
    started = time.perf_counter()
    with own_sharding():
        tracker = Tracker(recipe.tracking, recipe.output_dir, enabled=rank() == 0, parent=context.parent)
        prepared = prepare(recipe, device)
        with tracker:
            on_rank_zero(lambda: _write_start(recipe, prepared))
            log_origin(tracker, recipe, context)
            tracker.log_metrics({f"data/{name}/rows": count for name, count in prepared.mixture.items()}, 0)
            summary = _train(recipe, prepared, tracker, device, started, context.base)
            on_rank_zero(lambda: summary.save(Path(recipe.output_dir) / "summary.json", recipe.seed))
        if rank() == 0:
            print_summary(summary, tracker.describe())
        return summary


def log_origin(tracker: Tracker, recipe: Recipe, context: Context) -> None:
    """The resolved recipe as parameters, and the tags by which runs are found: docs/comparison.md has the list."""
    tracker.log_params(flatten(to_dict(recipe)))
    own = {
        "method": recipe.adapter.method,
        "model": recipe.model.name,
        "seed": recipe.seed,
        "git_commit": git_commit(),
        "recipe_hash": recipe_hash(to_dict(recipe)),
    }
    tracker.set_tags(own | dict(context.tags))


def build_model(recipe: Recipe, centroids: Centroids | None, tasks: Sequence[str]) -> Any:
    """The base model with a fresh adapter; the same parameters on every rank.

    Args:
        recipe: names the model and the method.
        centroids: travel with an adapter whose method needs intuition; None for the others.
        tasks: names of all tasks, in the order of their numbers.
    """
    base = load_base_model(recipe.model)
    config = peft_config(recipe.adapter)
    if recipe.adapter.needs_intuition:
        assert centroids is not None
        config.attach_centroids(centroids)
    torch.manual_seed(recipe.seed)  # every rank must draw the same A, of which it keeps its shard
    model = adapt(base, config, len(tasks))
    config.base_model_name_or_path = recipe.model.name
    config.revision = recipe.model.revision
    return model


def _train(
    recipe: Recipe, prepared: Prepared, tracker: Tracker, device: torch.device, started: float, base: Evaluation | None
) -> Summary:
    arguments = training_arguments(recipe)
    output = Path(recipe.output_dir)
    memory = MemoryRecord(output, tracker, sharded=arguments.hf_deepspeed_config.is_zero3())
    model = build_model(recipe, prepared.centroids, prepared.tasks)
    roles = memory.take("after loading", model, 0).roles
    base_parameters = roles[BASE].parameters
    trainable = trainable_parameters(model)
    sizes = {"trainable_parameters": trainable, "base_parameters": base_parameters}
    tracker.log_metrics({f"system/{name}": value for name, value in sizes.items()}, 0)

    intervals: list[dict[str, float]] = []

    def report(metrics: dict[str, float], step: int) -> None:
        intervals.append(metrics)
        tracker.log_metrics(metrics, step)

    trainer = make_trainer(recipe, prepared, model, arguments)
    measurements = Measurements(recipe, prepared, tracker, trainer, device, base)
    trainer.add_callback(JobCallback(trainer, measurements, recipe.evaluation.every, memory))
    trainer.add_callback(ReportCallback(report))
    trainer.train(resume_from_checkpoint=recipe.training.resume or None)
    last_step = trainer.state.global_step
    peak = memory.training_peak(last_step)
    seen = trainer.seen()
    step_seconds = _median(intervals, "train/step_seconds")
    tracker.log_metrics({"train/tokens_seen": seen.tokens, "system/median_step_seconds": step_seconds}, last_step)
    adapted = measurements.final(last_step)

    adapter = output / ADAPTER_FOLDER
    save_adapter(trainer, recipe, adapter)
    tracker.log_artifact(adapter, ADAPTER_FOLDER)
    tracker.log_artifact(output / RECIPE_FILE)
    return Summary(
        base=on_rank_zero(lambda: Evaluation.load(output / "evaluation_base.json")),
        adapted=adapted,
        trainable_parameters=trainable,
        base_parameters=base_parameters,
        tokens_per_second=_median(intervals, "train/tokens_per_second"),
        step_seconds=step_seconds,
        peak_bytes=peak,
        seen=seen,
        rows=prepared.mixture,
        steps=last_step,
        seconds=time.perf_counter() - started,
        adapter=adapter,
    )


def make_trainer(
    recipe: Recipe,
    prepared: Prepared,
    model: CausalLM,
    arguments: Any,
    kind: type[TRexTrainer] = TRexTrainer,
) -> TRexTrainer:
    """The trainer, of class `kind`, of a model that `build_model` has made while `arguments` were alive."""
    from transformers import PrinterCallback

    if recipe.training.gradient_checkpointing:
        model.enable_input_require_grads()
        model.gradient_checkpointing_enable()
    trainer = kind(
        model=model,
        args=arguments,
        train_dataset=prepared.training_set,
        data_collator=prepared.collator,
        processing_class=prepared.tokenizer,
    )
    trainer.remove_callback(PrinterCallback)  # which prints all that is logged as a dict
    trainer.add_callback(StepLines())
    for callback in hooks_of_model(model).callbacks(trainer):
        trainer.add_callback(callback)
    return trainer


def training_arguments(recipe: Recipe) -> Any:
    """Make the Trainer's arguments; while they live, transformers shards models as it loads them (under ZeRO-3)."""
    from transformers import TrainingArguments

    training = recipe.training
    return TrainingArguments(
        output_dir=recipe.output_dir,
        deepspeed=str(deepspeed_file(training.deepspeed)),
        use_cpu=not torch.cuda.is_available(),
        bf16=recipe.model.dtype == "bfloat16",
        max_steps=training.max_steps or -1,
        num_train_epochs=training.epochs,
        learning_rate=training.learning_rate,
        lr_scheduler_type=training.lr_scheduler,
        warmup_steps=training.warmup_steps,
        per_device_train_batch_size=training.micro_batch_size,
        gradient_accumulation_steps=training.gradient_accumulation_steps,
        weight_decay=training.weight_decay,
        max_grad_norm=training.max_grad_norm,
        logging_steps=training.log_every,
        logging_nan_inf_filter=False,  # a loss that is not finite ends the job
        save_strategy="steps" if training.save_every else "no",
        save_steps=training.save_every or 500,
        save_total_limit=2,
        seed=recipe.seed,
        data_seed=recipe.seed,
        remove_unused_columns=False,
        report_to="none",
        disable_tqdm=True,
    )


def _median(intervals: list[dict[str, float]], name: str) -> float:
    return statistics.median(metrics[name] for metrics in intervals) if intervals else math.nan


def _write_start(recipe: Recipe, prepared: Prepared) -> None:
    output = Path(recipe.output_dir)
    AdapterFolder(output).write_recipe(to_dict(recipe))
    write_identity(recipe.model, output, resumed=recipe.training.resume)
    write_data(describe_data(recipe.data, recipe.seed, prepared.store, prepared.indices), output)
    if prepared.centroids is not None:
        prepared.centroids.save(output)
    if recipe.adapter.needs_tasks:
        write_tasks(prepared.tasks, output)
