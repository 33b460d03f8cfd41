"""How lm-evaluation-harness scores a task: the metric that counts, and a rehearsal with the reference answer."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from itertools import islice
from numbers import Real
from typing import Any

from trex_ds.tasks.harness.rendering import render, requests_of

REHEARSED = 5
"""Documents of each task whose reference answers are scored before anything else is done."""

_ELSEWHERE = "it can be evaluated by trex-ds eval, not while training"


def main_metric(task: Any, samples: Sequence[Mapping[str, Any]], groups: Mapping[str, Any]) -> tuple[str, str]:
    """A task's main metric, and the filter of the answers that it is taken under.

    The metric is the first that the task reports whose value for every item is a number, more being
    better. The filter is the first that a group of the task is averaged under, else the task's first.

    Args:
        task: lm-eval's task.
        samples: its items, as lm-eval logs them; of all evaluations that are to be compared.
        groups: lm-eval's groups by name, of which some may have the task.

    Raises:
        ValueError: no metric is of that kind, or the main metric leaves [0, 1].
    """
    import numpy as np

    filters = list(dict.fromkeys(sample["filter"] for sample in samples))
    wanted = [name for group in groups.values() if _has(group, task) for name in _averaged_filters(group)]
    kept = next((name for name in wanted if name in filters), filters[0])
    own = [sample for sample in samples if sample["filter"] == kept]
    better = task.higher_is_better()
    names = [
        name
        for name in own[0]["metrics"]
        if better.get(name, True) and all(isinstance(sample.get(name), (Real, np.bool_)) for sample in own)
    ]
    if not names:
        raise ValueError(
            f"lm_eval:{task.config.task} has no metric with a value for each item, more being better (only "
            f"{', '.join(own[0]['metrics'])}); {_ELSEWHERE}"
        )
    bad = next((sample[names[0]] for sample in own if not 0 <= sample[names[0]] <= 1), None)
    if bad is not None:
        raise ValueError(
            f"lm_eval:{task.config.task}: its metric {names[0]} is {bad} for an item, not in [0, 1], so it is no "
            f"accuracy; {_ELSEWHERE}"
        )
    return names[0], kept


def _has(group: Any, task: Any) -> bool:
    return any(member.config.task == task.config.task for member in group.get_all_tasks())


def _averaged_filters(group: Any) -> list[str]:
    """Filters that the group's own metrics name; most name none, and are averaged under all."""
    return [name for metric in group.aggregate_metric_list or () for name in metric.filter_list or ()]


def score_reference(task: Any, groups: Mapping[str, Any]) -> float | None:
    """The best score that the task's own metric gives reference answers of its evaluation; None without a label.

    Args:
        task: lm-eval's task.
        groups: as `main_metric` takes them.

    Raises:
        ValueError: as `rehearse`, or `main_metric` finds no metric.
    """
    samples = rehearse(task)
    if not samples:
        return None
    metric, kept = main_metric(task, samples, groups)
    return max(float(sample[metric]) for sample in samples if sample["filter"] == kept)


def rehearse(task: Any) -> list[dict[str, Any]]:
    """What lm-eval would log of the first documents if a model gave their reference answers, under each filter.

    Raises:
        ValueError: the task's own functions fail on one, or ask otherwise each time.
    """
    documents = enumerate(islice(task.eval_docs, REHEARSED))
    return [sample for doc_id, doc in documents for sample in _rehearsed(task, doc, doc_id)]


def _rehearsed(task: Any, doc: Mapping[str, Any], doc_id: int) -> list[dict[str, Any]]:
    rendered = render(task, doc, doc_id)
    if rendered is None:
        return []
    where = f"lm_eval:{task.config.task}, document {doc_id}"
    if rendered != render(task, doc, doc_id):
        raise ValueError(f"{where}: the task asks otherwise each time that it is asked; take another task")
    chosen = copy.copy(task)
    chosen._instances = requests_of(task, doc, doc_id)
    for request in chosen.instances:
        right = request.args[:2] == (rendered.prompt, rendered.answer)
        answer = rendered.answer if request.request_type == "generate_until" else (0.0 if right else -1e3, right)
        request.resps = [answer] * (request.repeats or 1)
    try:
        chosen.apply_filters()
        filters = chosen.instances[0].filtered_resps
        found = {
            name: chosen.process_results(doc, [r.filtered_resps[name] for r in chosen.instances]) for name in filters
        }
    except Exception as error:  # of the task's own functions
        raise ValueError(
            f"{where}: lm-eval cannot score its reference answer: {type(error).__name__}: {error}; install what it "
            "needs, or take another task"
        ) from error
    return [{"filter": name, "metrics": list(metrics), **metrics} for name, metrics in found.items()]
