"""What lm-evaluation-harness has: its names, what they expand to, and what of it cannot be used here."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from typing import Any
from unittest import mock

INSTALL = "pip install 'trex_ds[eval]'"

_NEAREST = 3


@cache
def manager() -> Any:
    """lm-eval's own index of its tasks; reading its 14,000 YAML files takes ten seconds, once a process."""
    from lm_eval.tasks import TaskManager

    with quiet():
        return TaskManager()


@contextmanager
def quiet() -> Iterator[None]:
    """Let lm-eval and datasets say nothing but errors, and draw no progress bars, within the block."""
    import datasets
    import lm_eval.api.model
    import lm_eval.api.task

    names = ("lm_eval", "datasets")
    levels = [logging.getLogger(name).level for name in names]
    bars = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    for name in names:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with (
            mock.patch.object(lm_eval.api.task, "tqdm", _no_bar),
            mock.patch.object(lm_eval.api.model, "tqdm", _no_bar),
        ):
            yield
    finally:
        for name, level in zip(names, levels, strict=True):
            logging.getLogger(name).setLevel(level)
        if not bars:
            datasets.enable_progress_bars()


def _no_bar(iterable: Any, **_: Any) -> Any:
    return iterable


def name_problem(name: str) -> str | None:
    """Why lm-eval's task, group or tag `name` cannot be used, or None; nothing is loaded."""
    if find_spec("lm_eval") is None:
        return f"lm_eval:{name} needs lm-evaluation-harness, which is not installed: {INSTALL}"
    names = manager().all_tasks
    if name not in names:
        near = difflib.get_close_matches(name, names, n=_NEAREST)
        hint = f"did you mean {' or '.join(near)}?" if near else "`lm-eval ls tasks` shows all"
        return f"lm-eval {_version()} has no task {name!r}; {hint}"
    refused = {task: why for task, config in leaf_configs(name).items() if (why := _refusal(config))}
    if refused:
        task, why = next(iter(refused.items()))
        beside = "" if task == name else f"{task}, one of its {len(leaf_configs(name))} tasks, "
        return f"lm_eval:{name} cannot be used: {beside}{why}; take another task"
    return None


def leaf_configs(name: str) -> dict[str, Mapping[str, Any]]:
    """The tasks that `name` expands to, each with its YAML as lm-eval's index has it (includes resolved)."""
    index = manager().task_index
    entry = index[name]
    found: dict[str, Mapping[str, Any]] = {}
    if entry.kind.name == "TAG":
        for member in sorted(entry.tags):
            found |= leaf_configs(member)
    elif entry.kind.name == "GROUP":
        found |= _members(entry.cfg)
    else:
        found[name] = entry.cfg
    return found


def _members(group: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    index = manager().task_index
    found: dict[str, Mapping[str, Any]] = {}
    members = group["task"]
    for member in members if isinstance(members, list) else [members]:
        item = {"task": member} if isinstance(member, str) else member
        name = item.get("group", item.get("task"))
        if isinstance(name, str) and name in index:
            found |= {task: {**config, **_overrides(item)} for task, config in leaf_configs(name).items()}
        elif "group" in item:  # a group written out within this one
            found |= _members(item)
        else:
            found[str(name)] = item
    return found


def _overrides(item: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in item.items() if key not in ("task", "group")}


def _refusal(config: Mapping[str, Any]) -> str | None:
    if config.get("unsafe_code"):
        return "runs the generated text as code"
    if config.get("doc_to_image") or config.get("doc_to_audio"):
        return "asks about images or sound, which a text model cannot take"
    if config.get("output_type") == "loglikelihood_rolling":
        return "measures the perplexity of whole texts, so it has neither prompts nor answers"
    return None


def _version() -> str:
    from lm_eval import __version__

    return __version__
