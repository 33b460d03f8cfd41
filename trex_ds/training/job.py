"""The main job: tasks -> intuition -> base model -> adapter -> training -> accuracy -> saved adapter."""

from __future__ import annotations

import gc
import logging
import math
import os
import statistics
import time
import warnings
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors import safe_open

from trex_ds.config import ConfigError, flatten, to_dict
from trex_ds.data import Collator, TrainingSet, encode_prompt, encode_training, epoch_counts, epoch_indices
from trex_ds.distributed import PeerError, on_rank_zero, rank
from trex_ds.evaluation import Evaluation, Question, evaluate
from trex_ds.files import atomic_path
from trex_ds.intuition import Centroids, IntuitionResult, SentenceTransformerEmbedder, intuition_pass
from trex_ds.modeling import load_base_model, load_tokenizer, whole_weights
from trex_ds.tasks import Task, load_tasks
from trex_ds.tracking import Tracker
from trex_ds.training.launching import naming_the_rank, start_distributed
from trex_ds.training.recipe import Recipe
from trex_ds.training.report import Summary, print_summary
from trex_ds.training.trainer import JobCallback, TRexTrainer

log = logging.getLogger(__name__)

ADAPTER_FOLDER = "adapter"
RECIPE_FILE = "recipe.yaml"


@dataclass(frozen=True)
class Prepared:
    """The data of a job, equal on every rank."""

    tokenizer: Any
    training_set: TrainingSet
    questions: list[Question]
    centroids: Centroids


def train(recipe: Recipe) -> Summary:
    """Run the job that `recipe` describes; every rank of the launch calls it.

    Writes to `recipe.output_dir`: the adapter with its centroids (`adapter/`), the resolved recipe,
    the evaluations with every answer (`evaluation_base.json`, `evaluation_<step>.json`),
    `metrics.jsonl`, `summary.json`, and checkpoints where asked for.

    Raises:
        ConfigError: for a problem that only the data or the machine shows.
    """
    from transformers.integrations.deepspeed import unset_hf_deepspeed_config

    _quiet_libraries()
    device = start_distributed(recipe.training.timeout_minutes)
    started = time.perf_counter()
    with naming_the_rank():
        unset_hf_deepspeed_config()  # an earlier job's of this process would shard the embedder too
        tracker = Tracker(recipe.tracking, recipe.output_dir, enabled=rank() == 0)
        prepared = prepare(recipe, device)
        with tracker:
            on_rank_zero(lambda: _write_recipe(recipe, Path(recipe.output_dir)))
            tracker.log_params(flatten(to_dict(recipe)))
            summary = _train(recipe, prepared, tracker, device, started)
            on_rank_zero(lambda: summary.save(Path(recipe.output_dir) / "summary.json", recipe.seed))
        if rank() == 0:
            print_summary(summary, tracker.describe())
        return summary


def prepare(recipe: Recipe, device: torch.device) -> Prepared:
    """Load the tasks, run the intuition pass, encode; a collective."""
    try:
        tokenizer = load_tokenizer(recipe.model.name, recipe.model.revision)
        tasks, rows = encode_training(tokenizer, load_tasks(recipe.tasks), recipe.data)
        indices = epoch_indices(tasks, recipe.seed)
    except (ValueError, PeerError) as error:
        raise ConfigError([str(error)]) from error
    if rank() == 0:
        _log_mixture(tasks, epoch_counts(tasks, indices))
    train_prompts = [example.prompt for task in tasks for example in task.train]
    pairs = [(task, example) for task in tasks for example in task.evaluation]
    intuition = _intuition(recipe, train_prompts, [example.prompt for _, example in pairs], device)
    questions = [
        Question(example, task, encode_prompt(tokenizer, example.prompt, recipe.data.system_prompt), scores)
        for (task, example), scores in zip(pairs, intuition.evaluation_scores, strict=True)
    ]
    training_set = TrainingSet(rows, intuition.train_scores, indices)
    return Prepared(tokenizer, training_set, questions, intuition.centroids)


def _log_mixture(tasks: list[Task], counts: dict[str, int]) -> None:
    for task in tasks:
        log.info(
            "task %s: %d training rows, %d evaluation examples", task.name, counts[task.name], len(task.evaluation)
        )


def _intuition(recipe: Recipe, train: list[str], evaluation: list[str], device: torch.device) -> IntuitionResult:
    config = recipe.intuition
    # A resumed job keeps the clusters that its adapter was trained on so far.
    source = config.centroids
    if recipe.training.resume:
        source = str(Path(recipe.output_dir) / "centroids.safetensors")
    try:
        embedder = SentenceTransformerEmbedder(config.embedder, config.revision, config.prompt, device=str(device))
        result = intuition_pass(
            train,
            evaluation,
            embedder,
            recipe.adapter.num_clusters,
            batch_size=config.batch_size,
            max_embeddings=config.max_embeddings,
            seed=config.seed,
            centroids=Centroids.load(source) if source else None,
        )
    except (ValueError, FileNotFoundError, PeerError) as error:
        raise ConfigError([f"intuition: {error}"]) from error
    del embedder
    gc.collect()
    on_rank_zero(lambda: result.centroids.save(recipe.output_dir) and None)
    return result


def build_model(recipe: Recipe, centroids: Centroids) -> Any:
    """The base model with a fresh adapter; the same parameters on every rank."""
    from peft import get_peft_model

    base = load_base_model(recipe.model)
    config = recipe.adapter.build()
    config.attach_centroids(centroids)
    torch.manual_seed(recipe.seed)  # every rank must draw the same A, of which it keeps its shard
    # DeepSpeed keeps a float32 master copy, so the adapter itself has the base's type.
    model = get_peft_model(base, config, autocast_adapter_dtype=False)
    config.base_model_name_or_path = recipe.model.name
    config.revision = recipe.model.revision
    return model


def _train(recipe: Recipe, prepared: Prepared, tracker: Tracker, device: torch.device, started: float) -> Summary:
    arguments = _training_arguments(recipe)
    model = build_model(recipe, prepared.centroids)
    if recipe.training.gradient_checkpointing:
        model.enable_input_require_grads()
        model.gradient_checkpointing_enable()
    trainable = sum(getattr(p, "ds_numel", p.numel()) for p in model.parameters() if p.requires_grad)
    total = sum(getattr(p, "ds_numel", p.numel()) for p in model.parameters())
    tracker.log_params({"trainable_parameters": trainable, "base_parameters": total - trainable})
    tracker.set_tags({"method": "trex", "model": recipe.model.name})
    output = Path(recipe.output_dir)

    def measure(step: int) -> Evaluation:
        base = step == 0
        name = "base" if base else str(step)
        with whole_weights(trainer.model_wrapped) if recipe.evaluation.gather_weights else nullcontext():
            result = evaluate(
                model,
                prepared.tokenizer,
                prepared.questions,
                recipe.evaluation,
                device,
                description=f"accuracy, {'base model' if base else f'step {step}'}",
                use_adapter=not base,
            )
        on_rank_zero(lambda: result.save(output / f"evaluation_{name}.json"))
        tracker.log_metrics(result.metrics(), step)
        trainer.reset_token_clock()
        return result

    rates: list[float] = []

    def report(metrics: dict[str, float], step: int) -> None:
        rates.append(metrics["train/tokens_per_second"])
        tracker.log_metrics(metrics, step)

    callback = JobCallback(measure, recipe.evaluation.every, report)
    trainer = TRexTrainer(
        model=model,
        args=arguments,
        train_dataset=prepared.training_set,
        data_collator=Collator(prepared.tokenizer.pad_token_id),
        processing_class=prepared.tokenizer,
        callbacks=[callback],
    )
    callback.trainer = trainer
    trainer.train(resume_from_checkpoint=recipe.training.resume or None)
    adapted = measure(trainer.state.global_step)

    adapter = output / ADAPTER_FOLDER
    _save_adapter(trainer, recipe, adapter)
    tracker.log_artifact(adapter, ADAPTER_FOLDER)
    tracker.log_artifact(output / RECIPE_FILE)
    return Summary(
        base=Evaluation.load(output / "evaluation_base.json"),
        adapted=adapted,
        trainable_parameters=trainable,
        base_parameters=total - trainable,
        tokens_per_second=statistics.median(rates) if rates else math.nan,
        seconds=time.perf_counter() - started,
        adapter=adapter,
    )


def _training_arguments(recipe: Recipe) -> Any:
    """As long as the result lives, transformers shards models while it loads them (under ZeRO-3)."""
    from transformers import TrainingArguments

    training = recipe.training
    return TrainingArguments(
        output_dir=recipe.output_dir,
        deepspeed=training.deepspeed,
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
        save_strategy="steps" if training.save_every else "no",
        save_steps=training.save_every or 500,
        save_total_limit=2,
        seed=recipe.seed,
        data_seed=recipe.seed,
        remove_unused_columns=False,
        report_to="none",
    )


def _save_adapter(trainer: TRexTrainer, recipe: Recipe, folder: Path) -> None:
    """Write adapter, centroids, tokenizer and recipe to `folder`; all ranks call it, rank 0 writes."""
    with atomic_path(folder) if rank() == 0 else nullcontext(folder) as temporary:
        with warnings.catch_warnings():
            # PEFT looks for the base model's config to learn whether its vocabulary grew, which it never does here.
            warnings.filterwarnings("ignore", message="Could not find a config file")
            trainer.save_model(str(temporary))
        if rank() == 0:
            _refuse_empty_tensors(temporary / "adapter_model.safetensors")
            (temporary / "training_args.bin").unlink(missing_ok=True)  # a pickle, and the recipe says it all
            _write_recipe(recipe, temporary)


def _refuse_empty_tensors(file: Path) -> None:
    with safe_open(file, framework="pt") as tensors:
        empty = [key for key in tensors.keys() if 0 in tensors.get_slice(key).get_shape()]  # noqa: SIM118
    assert not empty, f"sharded tensors were saved without being gathered: {empty[:3]}"


def _write_recipe(recipe: Recipe, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_path(folder / RECIPE_FILE) as temporary:
        temporary.write_text(yaml.safe_dump(to_dict(recipe), sort_keys=False, allow_unicode=True))


def _quiet_libraries() -> None:
    """One rank logs; the others only warn about what is wrong."""
    first = int(os.environ.get("RANK", "0")) == 0
    logging.basicConfig(level=logging.INFO if first else logging.ERROR, format="%(levelname)s %(name)s: %(message)s")
    for name in ("deepspeed", "DeepSpeed", "transformers", "sentence_transformers", "httpx", "torch"):
        logging.getLogger(name).setLevel(logging.WARNING if first else logging.ERROR)
    # Deprecations inside the libraries are no news to users; other ranks would say everything again.
    warnings.simplefilter("ignore", category=FutureWarning if first else Warning)
