"""`lm_eval:NAME`: any task, group or tag of lm-evaluation-harness, to train and to evaluate on.

Prompts and answers are those of the task's own requests, so what is trained is what is evaluated.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from trex_ds.seeding import stable_hash
from trex_ds.tasks.base import Example, Split
from trex_ds.tasks.harness.documents import evaluation_split, training_docs
from trex_ds.tasks.harness.index import installation_problem, is_indexed, leaf_configs, name_problem, refusal
from trex_ds.tasks.harness.loading import hub_fingerprint, load_tasks, mirror_fingerprint
from trex_ds.tasks.harness.rendering import render
from trex_ds.tasks.harness.scoring import REHEARSED, score_reference
from trex_ds.tasks.registry import register
from trex_ds.tasks.source import Source
from trex_ds.wording import did_you_mean

logger = logging.getLogger(__name__)

_OPTIONS = ("training_split",)


@register("lm_eval")
class LmEvalSource(Source):
    """Examples from the documents of lm-eval's tasks; lm-eval asks and scores them."""

    plain = True

    def problems(self) -> list[str]:
        """A name that lm-eval does not have, and options that are not known."""
        found = [
            f"options: lm_eval: has no option {option!r}; {did_you_mean(option, _OPTIONS)}"
            for option in self.config.options
            if option not in _OPTIONS
        ]
        split = self._training_split
        if split is not None and not isinstance(split, str):
            found.append(f"options: training_split must be the name of a split, got {split!r}")
        check = name_problem if is_indexed() else installation_problem
        if problem := check(self.location):
            found.append(f"source: {problem}")
        return found

    def library_problems(self) -> list[str]:
        """A name that lm-eval does not have, a task that cannot be used, or one without a training split."""
        if problem := name_problem(self.location) or refusal(self.location):
            return [f"source: {problem}"]
        if self.config.train_examples == 0 or self._training_split is not None:
            return []
        # Tasks written in Python say it only when they are loaded.
        without = [
            task
            for task, config in leaf_configs(self.location).items()
            if "class" not in config and not config.get("training_split")
        ]
        return [f"train_examples: {_no_training_split(self.location, without)}"] if without else []

    def no_effect(self) -> list[str]:
        """What lm-eval's tasks decide themselves."""
        return ["evaluation_source", "evaluation_fraction", "columns"]

    def scorer(self) -> None:
        """None: lm-eval scores its own tasks, see trex_ds.evaluation.harness."""

    def fingerprint(self) -> str:
        """Version of lm-eval and the content of the datasets: of their files in the mirror, else their hub version."""
        parts = [f"lm-eval {version('lm_eval')}", f"datasets {version('datasets')}"]
        datasets = {(y.get("dataset_path"), y.get("dataset_name")): t for t, y in leaf_configs(self.location).items()}
        paths: dict[str, str] = {}
        for (path, name), task in datasets.items():
            if path is None or path in paths:
                continue
            folder = Path(self.mirror or "") / path
            mirrored = self.mirror and folder.is_dir()
            paths[path] = mirror_fingerprint(folder) if mirrored else hub_fingerprint(task, path, name)
        return "; ".join([*parts, *(f"{path} {found}" for path, found in paths.items())])

    def examples(self) -> Iterator[tuple[Split, Example]]:
        """The evaluation examples, then the training examples, in the order of subtasks and documents.

        Raises:
            ValueError: no training split to train on, an unusable one, a document that cannot be rendered,
                a split without any label, or a metric that is not an accuracy or does not count what would be learned.
        """
        loaded, config = load_tasks([self.location], self.mirror), self.config
        for task in loaded.tasks.values():
            _check_scoring(task, loaded.groups, is_trained=config.train_examples != 0)
        docs = {subtask: (evaluation_split(task), task.eval_docs) for subtask, task in loaded.tasks.items()}
        for example in _examples(
            self.location, loaded.tasks, "evaluation", docs, config.evaluation_examples, config.seed
        ):
            yield "evaluation", example
        if config.train_examples == 0:
            return
        wanted = self._training_split
        without = [name for name, task in loaded.tasks.items() if wanted is None and not task.has_training_docs()]
        if without:
            raise ValueError(_no_training_split(self.location, without))
        docs = {subtask: training_docs(task, wanted) for subtask, task in loaded.tasks.items()}
        for example in _examples(self.location, loaded.tasks, "train", docs, config.train_examples, config.seed):
            yield "train", example

    def keep_for_evaluation(self, folder: Path) -> None:
        """Copy the datasets that lm-eval evaluates on; `load_kept` reads them where there is neither hub nor mirror."""
        load_tasks([self.location], self.mirror, copies=folder)

    @property
    def _training_split(self) -> Any:
        return self.config.options.get("training_split")


def _check_scoring(task: Any, groups: dict[str, Any], is_trained: bool) -> None:
    best = score_reference(task, groups)
    if is_trained and best == 0:
        raise ValueError(
            f"lm_eval:{task.config.task}: its metric gives its own reference answers 0 (of the first {REHEARSED} "
            "documents), so what is learned would not count; set train_examples: 0 to evaluate only"
        )


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
