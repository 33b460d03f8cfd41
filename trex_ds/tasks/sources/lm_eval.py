"""`lm_eval:NAME`: any task, group or tag of lm-evaluation-harness, to train and to evaluate on.

Prompts and answers are those of the task's own requests, so what is trained is what is evaluated.
"""

from __future__ import annotations

import difflib
import logging
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trex_ds.seeding import stable_hash
from trex_ds.tasks.base import Example, Split
from trex_ds.tasks.harness.index import leaf_configs, name_problem
from trex_ds.tasks.harness.loading import hub_fingerprint, load_tasks, mirror_fingerprint
from trex_ds.tasks.harness.rendering import render
from trex_ds.tasks.harness.scoring import REHEARSED, score_reference

if TYPE_CHECKING:
    from trex_ds.tasks.config import TaskConfig

logger = logging.getLogger(__name__)

_OPTIONS = ("training_split",)


def problems(name: str, config: TaskConfig) -> list[str]:
    """A task that lm-eval does not have or that cannot be used, and options that are not known."""
    found = []
    for option in config.options:
        if option not in _OPTIONS:
            near = difflib.get_close_matches(option, _OPTIONS, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(_OPTIONS)}"
            found.append(f"options: lm_eval: has no option {option!r}; {hint}")
    split = config.options.get("training_split")
    if split is not None and not isinstance(split, str):
        found.append(f"options: training_split must be the name of a split, got {split!r}")
    problem = name_problem(name)
    if problem is not None:
        return [*found, f"source: {problem}"]
    if config.train_examples != 0 and split is None:
        # Tasks written in Python say it only when they are loaded.
        without = [task for task, y in leaf_configs(name).items() if "class" not in y and not y.get("training_split")]
        if without:
            found.append(f"train_examples: {_no_training_split(name, without)}")
    return found


def unused(config: TaskConfig) -> list[str]:
    """Fields that have no effect."""
    return ["evaluation_source", "evaluation_fraction", "columns"]


def scorer(name: str, config: TaskConfig) -> None:
    """None: lm-eval scores its own tasks, see trex_ds.evaluation.harness."""
    return None


def fingerprint(name: str, config: TaskConfig, mirror: str | None) -> str:
    """Version of lm-eval and the content of the datasets: of their files in the mirror, else their hub version."""
    parts = [f"lm-eval {version('lm_eval')}", f"datasets {version('datasets')}"]
    datasets = {(y.get("dataset_path"), y.get("dataset_name")): task for task, y in leaf_configs(name).items()}
    paths: dict[str, str] = {}
    for (path, config_name), task in datasets.items():
        if path is None or path in paths:
            continue
        folder = Path(mirror or "") / path
        found = mirror_fingerprint(folder) if mirror and folder.is_dir() else hub_fingerprint(task, path, config_name)
        paths[path] = found
    return "; ".join([*parts, *(f"{path} {found}" for path, found in paths.items())])


def read(name: str, config: TaskConfig, mirror: str | None) -> Iterator[tuple[Split, Example]]:
    """The evaluation examples, then the training examples, in the order of subtasks and documents.

    Raises:
        ValueError: no training split to train on, an unusable one, a document that cannot be rendered,
            a split without any label, or a metric that is no accuracy or does not count what would be learned.
    """
    loaded = load_tasks([name], mirror)
    for task in loaded.tasks.values():
        _check_scoring(task, loaded.groups, is_trained=config.train_examples != 0)
    evaluation = {subtask: (evaluation_split(task), task.eval_docs) for subtask, task in loaded.tasks.items()}
    yield from (
        ("evaluation", example)
        for example in _examples(name, loaded.tasks, "evaluation", evaluation, config.evaluation_examples, config.seed)
    )
    if config.train_examples == 0:
        return
    wanted = config.options.get("training_split")
    without = [subtask for subtask, task in loaded.tasks.items() if wanted is None and not task.has_training_docs()]
    if without:
        raise ValueError(_no_training_split(name, without))
    train = {subtask: training_docs(task, wanted) for subtask, task in loaded.tasks.items()}
    yield from (
        ("train", example)
        for example in _examples(name, loaded.tasks, "train", train, config.train_examples, config.seed)
    )


def _check_scoring(task: Any, groups: dict[str, Any], is_trained: bool) -> None:
    best = score_reference(task, groups)
    if is_trained and best == 0:
        raise ValueError(
            f"lm_eval:{task.config.task}: its metric gives its own reference answers 0 (of the first {REHEARSED} "
            "documents), so what is learned would not count; set train_examples: 0 to evaluate only"
        )


def evaluation_split(task: Any) -> str:
    """The name of the split that lm-eval evaluates on."""
    return task.config.test_split if task.has_test_docs() else task.config.validation_split


def training_docs(task: Any, split: str | None) -> tuple[str, Any]:
    """The name and the documents of the training split: the task's own, or the one named.

    Raises:
        ValueError: there is no such split, or it is the one to evaluate on.
    """
    if split is None:
        return task.config.training_split, task.training_docs()
    known = [name for name in task.dataset if name != evaluation_split(task)]
    if split not in known:
        why = "is what it is evaluated on" if split == evaluation_split(task) else "is none of its splits"
        raise ValueError(
            f"lm_eval:{task.config.task}: options.training_split {split!r} {why}; it has {', '.join(task.dataset)}, "
            f"and {', '.join(known) or 'none'} can be trained on"
        )
    docs = task.dataset[split]
    return split, docs if task.config.process_docs is None else task.config.process_docs(docs)


def _examples(
    name: str, tasks: dict[str, Any], split: Split, docs: dict[str, tuple[str, Any]], cap: int | None, seed: int
) -> Iterator[Example]:
    chosen = choose_documents({subtask: len(found) for subtask, (_, found) in docs.items()}, cap, (seed, split))
    made = unlabeled = 0
    for subtask, ids in chosen.items():
        dataset_split, found = docs[subtask]
        for doc_id in ids:
            rendered = render(tasks[subtask], found[doc_id], doc_id)
            if rendered is None:
                unlabeled += 1
                continue
            made += 1
            record = {
                "lm_eval": subtask,
                "split": split,
                "dataset_split": dataset_split,
                "doc_id": doc_id,
                "contexts": list(rendered.contexts),
            }
            yield Example(rendered.prompt, rendered.answer, name, rendered.choices, plain=True, record=record)
    splits = ", ".join(dict.fromkeys(dataset_split for dataset_split, _ in docs.values()))
    if unlabeled:
        logger.warning("lm_eval:%s: left out %d documents of %s, which have no label", name, unlabeled, splits)
    if not made and any(chosen.values()):
        raise ValueError(f"lm_eval:{name}: no document of {splits} has a label, so there is no {split} example")


def choose_documents(sizes: dict[str, int], cap: int | None, seed: tuple[int, str]) -> dict[str, Sequence[int]]:
    """Document ids of each subtask, `cap` in all (all if None), spread in proportion to the subtasks' sizes.

    Which ones depends on nothing but `seed`, the subtask's name and the ids.
    """
    total = sum(sizes.values())
    if cap is None or cap >= total:
        return {subtask: range(size) for subtask, size in sizes.items()}
    shares = {subtask: divmod(cap * size, total) for subtask, size in sizes.items()}
    counts = {subtask: whole for subtask, (whole, _) in shares.items()}
    # What rounding down leaves goes to the largest remainders.
    for subtask in sorted(sizes, key=lambda subtask: -shares[subtask][1])[: cap - sum(counts.values())]:
        counts[subtask] += 1
    return {subtask: _draw(size, counts[subtask], (*seed, subtask)) for subtask, size in sizes.items()}


def _draw(size: int, count: int, seed: tuple[str | int, ...]) -> list[int]:
    return sorted(sorted(range(size), key=lambda i: stable_hash(*seed, i))[:count])


def _no_training_split(name: str, tasks: Sequence[str]) -> str:
    which = "" if list(tasks) == [name] else f" (it has none for {', '.join(tasks[:3])}{', ...' * (len(tasks) > 3)})"
    return (
        f"lm_eval:{name} has no training split{which}; set train_examples: 0 to evaluate only, or name a split to "
        "train on, as options: {training_split: validation}"
    )
