"""The data of a job: what its recipe's preparation comes to, stage by stage."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch

from trex_ds.config import ConfigError
from trex_ds.data.collator import Collator, PackedCollator
from trex_ds.data.datasets import PackedSet, TrainingSet
from trex_ds.data.epochs import epoch_counts, epoch_indices
from trex_ds.data.packing import plan_rows
from trex_ds.data.store import Store, TrainRows, lengths
from trex_ds.distributed import PeerError, agreed, local_rank, on_rank_zero, rank
from trex_ds.evaluation.generation import Question
from trex_ds.intuition.centroids import Centroids
from trex_ds.intuition.scores import IntuitionResult
from trex_ds.modeling.base import fetch_base_model, load_tokenizer, supported_attention
from trex_ds.modeling.config import ModelConfig
from trex_ds.preparation.examples import harness_data, load_examples
from trex_ds.preparation.intuition import resumed_centroids, score_texts
from trex_ds.preparation.questions import check_answers, check_positions, contexts_of, to_question
from trex_ds.preparation.seen_data import check_data, describe_data
from trex_ds.preparation.splits import Split, split
from trex_ds.preparation.stages import Stage
from trex_ds.preparation.trial import Trial, try_model
from trex_ds.protocols import Tokenizer
from trex_ds.training.recipe import Recipe

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Prepared:
    """The data of a job, equal on every rank."""

    tokenizer: Tokenizer
    training_set: TrainingSet | PackedSet
    collator: Collator | PackedCollator
    """Collator of the training set's items."""
    questions: list[Question]
    """All evaluation examples."""
    held_out: list[Question]
    """Training examples held out to measure with while training; empty unless the recipe asks for it."""
    left_out: TrainingSet
    """Training examples that are not trained on whatever the seed; empty unless the recipe asks for it."""
    intuition: IntuitionResult | None
    """None for a method that takes none."""
    mixture: dict[str, int]
    """Training rows of each task in an epoch."""
    harness_data: dict[str, Path]
    """Folders by lm_eval task: the one with the datasets of its evaluation."""
    store: Store
    indices: np.ndarray
    """The training examples of an epoch, by their places in the store."""
    stages: list[Stage] = field(default_factory=list)

    @property
    def centroids(self) -> Centroids | None:
        """The centroids of the intuition scores."""
        return self.intuition.centroids if self.intuition is not None else None

    @property
    def tasks(self) -> list[str]:
        """Names of all tasks, in the order of their numbers."""
        return list(self.store.counts)


def prepare(recipe: Recipe, device: torch.device) -> Prepared:
    """Load the tasks, tokenize, run the intuition pass; what the cache folder has already is taken from it.

    A collective. What one process does alone (all but the intuition pass) is done by the first process of
    each node, while the others look for its result on disk.

    Raises:
        ConfigError: the tasks, their data or the embedder cannot be used; on every rank.
    """
    try:
        return _prepare(recipe, device)
    except ConfigError:
        raise
    except (ValueError, PeerError) as error:
        raise ConfigError([str(error)]) from error


def _prepare(recipe: Recipe, device: torch.device) -> Prepared:
    stages: list[Stage] = []
    _fetch_model(recipe.model)
    tokenizer = load_tokenizer(recipe.model.name, recipe.model.revision)
    trial = on_rank_zero(lambda: try_recipe(recipe, tokenizer))
    store, folders = load_examples(recipe.tasks, recipe.data, tokenizer, stages)
    held_out = recipe.evaluation.held_out if recipe.evaluation.every else 0
    parts = split(store, held_out=held_out, left_out=recipe.data.left_out, seed=recipe.seed)
    mixture, indices = _epoch(recipe, store, parts)
    if rank() == 0:
        _log(trial, store, parts, mixture)

    asked = [store.example("evaluation", i) for i in range(len(store.evaluation))]
    asked_meanwhile = [store.example("train", i) for i in parts.held_out]
    contexts = [text for example, *_ in asked + asked_meanwhile for text in contexts_of(example)]
    if recipe.training.resume and not recipe.training.resume_with_other_data:
        described = partial(describe_data, recipe.data, recipe.seed, store, indices)
        on_rank_zero(lambda: check_data(described(), Path(recipe.output_dir)))
    check_positions(trial.learned_positions, recipe.model.name, asked + asked_meanwhile, recipe.evaluation)
    check_answers(tokenizer, store, [example for example, *_ in asked], recipe.evaluation)

    intuition = None
    if recipe.adapter.needs_intuition:
        resumed = resumed_centroids(Path(recipe.output_dir)) if recipe.training.resume else None
        where = (recipe.data.cache_path(), device, stages)
        clusters = recipe.adapter.num_clusters
        intuition = score_texts(recipe.intuition, clusters, store, folders, contexts, *where, resumed=resumed)

    by_task = recipe.adapter.needs_tasks
    scores, score_rows = (None, None) if intuition is None else (intuition.scores, intuition.rows(store.digests))
    numbers = store.task_numbers if by_task else None
    make_set = partial(TrainingSet, TrainRows(store), scores, score_rows, task_numbers=numbers)
    training_set, collator = _rows(recipe, tokenizer, store, trial, make_set(indices), indices)
    ask = partial(to_question, recipe.tasks, tokenizer, store, intuition, by_task=by_task)
    return Prepared(
        tokenizer=tokenizer,
        training_set=training_set,
        collator=collator,
        questions=[ask(*item) for item in asked],
        held_out=[ask(*item) for item in asked_meanwhile],
        left_out=make_set(parts.left_out),
        intuition=intuition,
        mixture=mixture,
        harness_data=harness_data(store, folders),
        store=store,
        indices=indices,
        stages=stages,
    )


def try_recipe(recipe: Recipe, tokenizer: Tokenizer) -> Trial:
    """Try a recipe's model and adapter: see `try_model`."""
    return try_model(
        recipe.model,
        recipe.adapter,
        recipe.data,
        tokenizer,
        num_tasks=len(recipe.tasks),
        micro_batch_size=recipe.training.micro_batch_size,
        checkpointing=recipe.training.gradient_checkpointing,
    )


def _fetch_model(model: ModelConfig) -> None:
    """Bring the base model to every node, where its ranks would else wait for a download inside a collective."""
    with agreed():
        if local_rank() == 0:
            try:
                fetch_base_model(model)
            except (OSError, ValueError) as problem:
                raise ValueError(f"model.name: {model.name} cannot be used: {problem}") from problem


def _epoch(recipe: Recipe, store: Store, parts: Split) -> tuple[dict[str, int], np.ndarray]:
    """Rows of each task in an epoch, and their places in the store in the order of the training."""
    sizes = {name: len(own) for name, own in parts.trained.items()}
    weights = {name: recipe.tasks[store.entry[name]].weight for name in sizes}
    mixture = epoch_counts(sizes, weights, recipe.data.mixing, recipe.data.temperature)
    return mixture, epoch_indices(parts.trained, mixture, recipe.seed)


def _rows(
    recipe: Recipe, tokenizer: Tokenizer, store: Store, trial: Trial, examples: TrainingSet, indices: np.ndarray
) -> tuple[TrainingSet | PackedSet, Collator | PackedCollator]:
    """The examples of an epoch as rows, one or several examples each, and what makes batches of them."""
    if not recipe.data.packing or trial.rows.packed is None:
        return examples, Collator(tokenizer.pad_token_id)
    packing = plan_rows(lengths(store.train)[indices], recipe.data.max_length, recipe.seed)
    if rank() == 0:
        log.info("packing: %s", packing)
    one_row = "flash" in supported_attention(recipe.model)
    return PackedSet(examples, packing), PackedCollator(tokenizer.pad_token_id, one_row=one_row)


def _log(trial: Trial, store: Store, parts: Split, mixture: dict[str, int]) -> None:
    for note in trial.notes:
        log.info("%s", note)
    for name, count in store.counts.items():
        trained = len(parts.trained.get(name, ()))
        log.info(
            "task %s: %d training examples an epoch, of %d (%d more are too long), %d evaluation examples",
            *(name, mixture.get(name, 0), trained, count["too_long"], count["evaluation"]),
        )
