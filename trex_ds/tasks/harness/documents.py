"""The documents of lm-evaluation-harness's tasks: on which a task is evaluated, and on which it is trained."""

from __future__ import annotations

from typing import Any


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
        why = "is what it is evaluated on" if split == evaluation_split(task) else "is not one of its splits"
        raise ValueError(
            f"lm_eval:{task.config.task}: options.training_split {split!r} {why}; it has {', '.join(task.dataset)}, "
            f"and {', '.join(known) or 'none'} can be trained on"
        )
    docs = task.dataset[split]
    return split, docs if task.config.process_docs is None else task.config.process_docs(docs)
