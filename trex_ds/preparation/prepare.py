"""Data of a job, from its recipe: examples, tokens and intuition scores, made once and kept in a cache folder."""

from __future__ import annotations

import gc
import logging
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from trex_ds.config import ConfigError, to_dict
from trex_ds.data import store as data_store
from trex_ds.data.cache import Builder, check_writable, content_key, one_job_at_a_time
from trex_ds.data.collator import Collator, PackedCollator
from trex_ds.data.datasets import PackedSet, TrainingSet
from trex_ds.data.epochs import epoch_counts, epoch_indices, held_out_positions, without
from trex_ds.data.packing import plan_rows
from trex_ds.data.store import Store, TrainRows, TrainTexts, lengths, open_store, tokenizer_fingerprint, write_examples
from trex_ds.distributed import PeerError, agree, local_rank, on_rank_zero, rank
from trex_ds.evaluation.generation import Question
from trex_ds.files import atomic_path
from trex_ds.intuition.centroids import Centroids
from trex_ds.intuition.clustering import intuition_pass
from trex_ds.intuition.embedder import SentenceTransformerEmbedder
from trex_ds.intuition.scores import IntuitionResult, text_digests
from trex_ds.modeling.base import fetch_base_model, load_tokenizer, supported_attention
from trex_ds.preparation.questions import check_answers, to_question
from trex_ds.preparation.seen_data import check_data, describe_data
from trex_ds.preparation.trial import check_positions, try_model
from trex_ds.tasks.base import Example
from trex_ds.tasks.config import TaskConfig
from trex_ds.tasks.source import source_of

if TYPE_CHECKING:
    from trex_ds.training.recipe import Recipe

log = logging.getLogger(__name__)

# Of the choice of what is left out, so that no seed of a recipe chooses the same by its own.
_LEFT_OUT_SEED = 20_240_408
BENCHMARK_DATA = "datasets"
"""Subfolder of a prepared task with the datasets that its evaluation needs."""


@dataclass(frozen=True)
class Stage:
    """What one stage of the preparation cost on this rank."""

    name: str
    items: int
    seconds: float
    made: bool
    """False if the cache had it."""
    peak_mib: float
    """Largest resident memory of the process so far."""


@dataclass(frozen=True)
class Prepared:
    """The data of a job, equal on every rank."""

    tokenizer: Any
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
    benchmark_data: dict[str, Path]
    """Folders by lm_eval task: the one with the datasets of its evaluation."""
    store: Store
    indices: np.ndarray
    """The training examples of an epoch, by their places in the store."""
    stages: list[Stage] = field(default_factory=list)

    @property
    def centroids(self) -> Centroids | None:
        """Centroids of the intuition scores."""
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
    stages: list[Stage] = []
    try:
        _fetch_model(recipe)
        tokenizer = load_tokenizer(recipe.model.name, recipe.model.revision)
        trial = on_rank_zero(lambda: try_model(recipe, tokenizer))
        if rank() == 0:
            for note in trial.notes:
                log.info("%s", note)
        store, folders = _examples(recipe, tokenizer, stages)
        evaluation_digests = store.evaluation.data.column("digest").to_numpy()
        positions, held_out, left_out = _split(recipe, store, evaluation_digests)
        sizes = {name: len(own) for name, own in positions.items()}
        weights = {name: recipe.tasks[store.entry[name]].weight for name in sizes}
        mixture = epoch_counts(sizes, weights, recipe.data.mixing, recipe.data.temperature)
        indices = epoch_indices(positions, mixture, recipe.seed)
        if rank() == 0:
            for name, count in store.counts.items():
                log.info(
                    "task %s: %d training examples an epoch, of %d (%d more are too long), %d evaluation examples",
                    *(name, mixture.get(name, 0), sizes.get(name, 0), count["too_long"], count["evaluation"]),
                )
        examples = [store.example("evaluation", i) for i in range(len(store.evaluation))]
        held_out_examples = [store.example("train", i) for i in held_out]
        contexts = [text for example, *_ in examples + held_out_examples for text in _contexts(example)]
        if recipe.training.resume and not recipe.training.resume_with_other_data:
            on_rank_zero(lambda: check_data(describe_data(recipe, store, indices), Path(recipe.output_dir)))
        check_positions(recipe, trial, examples + held_out_examples)
        check_answers(recipe, tokenizer, store, [example for example, *_ in examples])
        intuition = None
        if recipe.adapter.needs_intuition:
            intuition = _intuition(recipe, store, folders, contexts, device, stages)
    except ConfigError:
        raise
    except (ValueError, PeerError) as error:
        raise ConfigError([str(error)]) from error
    scores, score_rows = (None, None) if intuition is None else (intuition.scores, intuition.rows(store.digests))
    numbers = store.task_numbers if recipe.adapter.needs_tasks else None
    make_set = partial(TrainingSet, TrainRows(store), scores, score_rows, task_numbers=numbers)
    training_set = make_set(indices)
    packing = None
    packed = recipe.data.packing and trial.rows.packed is not None
    if packed:
        packing = plan_rows(lengths(store.train)[indices], recipe.data.max_length, recipe.seed)
        if rank() == 0:
            log.info("packing: %s", packing)
    ask = partial(to_question, recipe, tokenizer, store, intuition)
    return Prepared(
        tokenizer=tokenizer,
        training_set=training_set if packing is None else PackedSet(training_set, packing),
        collator=_collator(recipe, tokenizer, packed),
        questions=[ask(*item) for item in examples],
        held_out=[ask(*item) for item in held_out_examples],
        left_out=make_set(left_out),
        intuition=intuition,
        mixture=mixture,
        benchmark_data={
            name: folders[entry] / BENCHMARK_DATA
            for name, entry in store.entry.items()
            if (folders[entry] / BENCHMARK_DATA).is_dir()
        },
        store=store,
        indices=indices,
        stages=stages,
    )


def _fetch_model(recipe: Recipe) -> None:
    """Bring the base model to every node, where its ranks would else wait for a download inside a collective."""
    error: Exception | None = None
    if local_rank() == 0:
        try:
            fetch_base_model(recipe.model)
        except (OSError, ValueError) as problem:
            error = ValueError(f"model.name: {recipe.model.name} cannot be used: {problem}")
    agree(error)


def _examples(recipe: Recipe, tokenizer: Any, stages: list[Stage]) -> tuple[Store, list[Path]]:
    """The examples of all entries, read and tokenized if the cache does not have them."""
    builder = Builder()
    tasks = recipe.data.cache_path() / "tasks"
    known = tasks.parent / "fingerprints"
    tokens = tokenizer_fingerprint(tokenizer)
    keys = on_rank_zero(lambda: [_entry_key(recipe, entry, tokens, known) for entry in recipe.tasks])
    check_writable(tasks.parent, needed=not all((tasks / key).is_dir() for key in keys))
    with _stage("examples", stages) as stage:
        folders, error = [], None
        try:
            for entry, key in zip(recipe.tasks, keys, strict=True):
                make = partial(_write_entry, recipe, entry, tokenizer)
                stage["made"] += not (tasks / key).is_dir()
                folders.append(builder.build(tasks / key, make))
        except Exception as exception:
            error = exception
        agree(error)
        store = open_store(folders, [entry.source for entry in recipe.tasks])
        stage["items"] = len(store.train) + len(store.evaluation)
    return store, folders


def _entry_key(recipe: Recipe, entry: TaskConfig, tokens: str, known: Path) -> str:
    """Cache key of an entry's examples; changes with all that they depend on."""
    config = to_dict(replace(entry, weight=1.0))
    remembered = known / content_key([config, recipe.data.mirror])
    before = remembered.read_text(encoding="utf-8") if remembered.is_file() else None
    try:
        if missing := recipe.data.mirror_problem():
            raise ValueError(missing)  # the hub is no substitute for it
        found = source_of(entry, recipe.data.mirror).fingerprint()
    except (OSError, ValueError) as error:
        # A node without a way to the hub or the mirror trusts what was found when the data was prepared.
        if before is None:
            raise ValueError(f"{entry.source}: cannot be reached, and has not been prepared: {error}") from error
        found = before
    else:
        if found != before:
            # A cache that cannot be written to may have all the same what is asked for.
            with suppress(OSError), atomic_path(remembered) as temporary:
                temporary.write_text(found, encoding="utf-8")
    data = recipe.data
    parts = [data_store.FORMAT, config, found, tokens, data.system_prompt, data.max_length]
    parts += [data.learn, data.escape_control_tokens]
    return content_key(parts)


def _write_entry(recipe: Recipe, entry: TaskConfig, tokenizer: Any, folder: Path) -> None:
    source = source_of(entry, recipe.data.mirror)
    write_examples(folder, source.examples(), tokenizer, recipe.data, entry.source)
    source.keep_for_evaluation(folder / BENCHMARK_DATA)


def _split(
    recipe: Recipe, store: Store, evaluation: np.ndarray
) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Positions of each task's training examples, none of them evaluated on; those held out, and those left out."""
    positions: dict[str, np.ndarray] = {}
    count = recipe.evaluation.held_out if recipe.evaluation.every else 0
    for name, counts in store.counts.items():
        own = store.positions(name)
        kept = without(own, store.digests, evaluation)
        if len(kept) < len(own) and rank() == 0:
            log.info("task %s: left out %d training examples with an evaluation prompt", name, len(own) - len(kept))
        if not len(kept):
            if counts["train"]:
                raise ValueError(f"task {name!r}: all {len(own)} training examples have prompts of the evaluation")
            continue
        positions[name] = kept
    if not positions:
        raise ValueError("tasks: none has training examples; give one train_examples other than 0")
    positions, left_out = _hold_out(positions, store, recipe.data.left_out, _LEFT_OUT_SEED)
    if recipe.data.left_out and not len(left_out):
        raise ValueError(
            "data.left_out: there is nothing to leave out: no task has 10 distinct training prompts; set it to 0, or "
            "add data"
        )
    positions, held_out = _hold_out(positions, store, count, recipe.seed)
    if count and not len(held_out):
        raise ValueError(
            "evaluation.every: there is nothing to evaluate while training: no task has 10 distinct training prompts, "
            "of which one could be held out; set it to null, or add data"
        )
    return positions, held_out, left_out


def _hold_out(
    positions: dict[str, np.ndarray], store: Store, count: int, seed: int
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """`positions` without at most `count` examples of each task, and these."""
    held = np.concatenate([held_out_positions(own, store.digests, count, seed) for own in positions.values()])
    # Of all tasks at once, because a prompt may occur in several.
    positions = {name: without(own, store.digests, store.digests[held]) for name, own in positions.items()}
    return {name: own for name, own in positions.items() if len(own)}, held


def _collator(recipe: Recipe, tokenizer: Any, packed: bool) -> Collator | PackedCollator:
    if not packed:
        return Collator(tokenizer.pad_token_id)
    return PackedCollator(tokenizer.pad_token_id, one_row="flash" in supported_attention(recipe.model))


def _contexts(example: Example) -> list[str]:
    """The texts whose intuition scores are needed to answer an example."""
    return [example.text, *(example.record or {}).get("contexts", ())]


def _intuition(
    recipe: Recipe, store: Store, folders: list[Path], contexts: list[str], device: torch.device, stages: list[Stage]
) -> IntuitionResult:
    config = recipe.intuition
    digests = text_digests(contexts)
    new = ~np.isin(digests, store.digests)
    # Only these, so that another choice of held-out examples asks for the same pass.
    contexts, digests = [text for text, is_new in zip(contexts, new, strict=True) if is_new], digests[new]
    given = Centroids.load(config.centroids) if config.centroids else None
    kept = _trained_on(recipe) if recipe.training.resume else None
    with _stage("intuition", stages) as stage:
        stage["items"] = len(store.train) + len(contexts)
        result = None
        for centroids in (given, kept) if kept else (given,):
            parts = [
                *(1, [folder.name for folder in folders], np.unique(digests).tolist(), config.revision),
                *(config.embedder, _embedder_content(config.embedder), config.prompt, config.batch_size),
                *(config.max_embeddings, config.seed, recipe.adapter.num_clusters, centroids and centroids.fingerprint),
            ]
            folder = recipe.data.cache_path() / "intuition" / on_rank_zero(partial(content_key, parts))
            result = IntuitionResult.open(folder)
            if result is not None and (kept is None or result.centroids.fingerprint == kept.fingerprint):
                break
        else:
            check_writable(folder.parent, needed=True)
            with one_job_at_a_time(folder):
                result = IntuitionResult.open(folder)  # if another job has made it meanwhile
                if result is None:
                    stage["made"] += 1
                    result = _pass(recipe, store, contexts, kept or given, folder, device)
    return result


def _pass(
    recipe: Recipe, store: Store, contexts: list[str], centroids: Centroids | None, folder: Path, device: torch.device
) -> IntuitionResult:
    config = recipe.intuition
    try:
        embedder = SentenceTransformerEmbedder(config.embedder, config.revision, config.prompt, device=str(device))
        result = intuition_pass(
            TrainTexts(store),
            contexts,
            embedder,
            recipe.adapter.num_clusters,
            folder=folder,
            batch_size=config.batch_size,
            max_embeddings=config.max_embeddings,
            seed=config.seed,
            centroids=centroids,
            train_digests=store.digests,
        )
    except (ValueError, FileNotFoundError) as error:
        raise ValueError(f"intuition: {error}") from error
    del embedder
    gc.collect()
    return result


def _trained_on(recipe: Recipe) -> Centroids:
    """The clusters that a resumed job's adapter was trained on so far; it keeps them."""
    try:
        return Centroids.load(recipe.output_dir)
    except FileNotFoundError as error:
        raise ValueError(
            f"training.resume: {recipe.output_dir} has a checkpoint but no centroids.safetensors, which its adapter "
            "was trained with; copy it there, or start again in another output_dir"
        ) from error


def _embedder_content(name: str) -> str:
    """What an embedder in a folder consists of: names, sizes and times of its files; "" for one from elsewhere."""
    folder = Path(name)
    if not folder.is_dir():
        return ""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return content_key([[str(f.relative_to(folder)), f.stat().st_size, f.stat().st_mtime_ns] for f in files])


@contextmanager
def _stage(name: str, stages: list[Stage]) -> Iterator[dict[str, int]]:
    """Time a block, which sets "items" and counts in "made" what it did not find in the cache."""
    started = time.perf_counter()
    counts = {"items": 0, "made": 0}
    yield counts
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    stages.append(Stage(name, counts["items"], time.perf_counter() - started, bool(counts["made"]), peak))
