"""Loaded tasks and results in small, as lm-eval has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Real
from types import SimpleNamespace
from typing import Any

from lm_eval.api.group import Group

from trex_ds.tasks.harness.loading import Loaded


def loaded(
    names: Sequence[str],
    members: Mapping[str, tuple[str, ...]] | None = None,
    better: Mapping[str, bool] | None = None,
    aggregated: object = None,
) -> Loaded:
    """Tasks by those names, and groups of them for the `members` of more than one; keeps what `results_of` needs."""
    tasks = {
        name: SimpleNamespace(
            config=SimpleNamespace(task=name), higher_is_better=lambda: dict(better or {}), aggregated=aggregated
        )
        for name in names
    }
    members = dict(members or {name: (name,) for name in names})
    groups = {name: Group(name) for name, own in members.items() if len(own) > 1}
    return Loaded(tasks, members, groups)


def results_of(tasks: Loaded, scores: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
    """Results of a metric "acc" with these values of the items, whose mean lm-eval reports too if all are numbers."""
    given = next(iter(tasks.tasks.values())).aggregated or {}
    found: dict[str, Any] = {name: {"alias": name, **given.get(name, {})} for name in {*scores, *given}}
    for name, values in scores.items():
        if name not in given and all(isinstance(value, Real) for value in values):
            found[name]["acc,none"] = sum(values) / len(values)
    return {
        "results": found,
        "samples": {
            name: [{"doc_id": i, "filter": "none", "metrics": ["acc"], "acc": value} for i, value in enumerate(values)]
            for name, values in scores.items()
        },
        "n-samples": {name: {"effective": len(values)} for name, values in scores.items()},
        "higher_is_better": {name: task.higher_is_better() for name, task in tasks.tasks.items()},
    }
