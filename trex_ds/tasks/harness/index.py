"""What lm-evaluation-harness has: its names, what they expand to, and what of it cannot be used here."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest import mock

from trex_ds.files import cache_folder, write_json
from trex_ds.packaged import install
from trex_ds.wording import nearest

INSTALL = install("lm_eval", "eval")

_NEAREST = 3


@cache
def folders() -> dict[str, str]:
    """Map every name that lm-eval has to the folder of its YAML files and of all that it expands to.

    Reading all of lm-eval's 14,000 files takes up to half a minute, so this is kept in the user's cache folder.
    """
    # Without a cache folder, or one that can be read or written, every process reads those files: slow, not wrong.
    with suppress(OSError, ValueError):
        return json.loads(_index_file().read_text(encoding="utf-8"))
    index = _index(_root())
    found = {name: str(_folder_of(name, index).relative_to(_root())) for name in index}
    with suppress(OSError, ValueError):
        write_json(_index_file(), found)
    return found


def _index_file() -> Path:
    return cache_folder() / f"lm-eval-{version('lm_eval')}-index.json"


def manager(name: str) -> Any:
    """lm-eval's TaskManager for a task, group or tag that it has, and for all that it expands to."""
    return _manager(_root() / folders()[name])


@cache
def _manager(folder: Path) -> Any:
    from lm_eval.tasks import TaskManager

    with quiet():
        return TaskManager(include_defaults=False, include_path=folder)


def _index(folder: Path) -> Mapping[str, Any]:
    return _manager(folder).task_index


def _root() -> Path:
    import lm_eval.tasks

    return Path(lm_eval.tasks.__file__).parent


def _folder_of(name: str, index: Mapping[str, Any]) -> Path:
    """The folder that has all YAML files of `name`: one, because lm-eval loses tags that lie in several."""
    places = {index[one].yaml_path.parent for one in _within(name, index) if index[one].yaml_path}
    return Path(os.path.commonpath(places)) if places else _root()


def _within(name: str, index: Mapping[str, Any]) -> set[str]:
    """`name` and all the names that it expands to, on the way too."""
    entry = index[name]
    found = {name}
    if entry.kind.name == "TAG":
        return found.union(*(_within(member, index) for member in entry.tags))
    if entry.kind.name == "GROUP":
        return found.union(*(_within(member, index) for member in _named(entry.cfg) if member in index))
    return found


def _named(group: Mapping[str, Any]) -> Iterator[str]:
    for item in _items(group):
        name = item.get("group", item.get("task"))
        if isinstance(name, str):
            yield name
        if "group" in item and isinstance(item.get("task"), list):
            yield from _named(item)


def _items(group: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """A group's members, each as a mapping."""
    members = group["task"] if isinstance(group["task"], list) else [group["task"]]
    return [{"task": member} if isinstance(member, str) else member for member in members]


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


def installation_problem(name: str) -> str | None:
    """Says that lm-eval is not installed, so that `name` cannot be used; None if it is."""
    if find_spec("lm_eval") is None:
        return f"lm_eval:{name} needs lm-evaluation-harness, which is not installed: {INSTALL}"
    return None


def is_indexed() -> bool:
    """Whether `folders` takes milliseconds."""
    with suppress(OSError, ValueError):
        return _index_file().is_file()
    return False


def name_problem(name: str) -> str | None:
    """Why lm-eval has no task, group or tag `name`, or None."""
    if problem := installation_problem(name):
        return problem
    if name not in folders():
        near = nearest(name, folders(), _NEAREST)
        hint = f"did you mean {' or '.join(near)}?" if near else "`lm-eval ls tasks` shows all"
        return f"lm-eval {version('lm_eval')} has no task {name!r}; {hint}"
    return None


def refusal(name: str) -> str | None:
    """Why lm-eval's task, group or tag `name` cannot be used, or None; imports lm-eval, but loads no data."""
    refused = {task: why for task, config in leaf_configs(name).items() if (why := _refusal(config))}
    if refused:
        task, why = next(iter(refused.items()))
        beside = "" if task == name else f"{task}, one of its {len(leaf_configs(name))} tasks, "
        return f"lm_eval:{name} cannot be used: {beside}{why}; take another task"
    return None


def leaf_configs(name: str) -> dict[str, Mapping[str, Any]]:
    """The tasks that `name` expands to, each with its YAML as lm-eval's index has it (includes resolved)."""
    return _leaves(name, manager(name).task_index)


def _leaves(name: str, index: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    entry = index[name]
    if entry.kind.name == "TAG":
        return {task: config for member in sorted(entry.tags) for task, config in _leaves(member, index).items()}
    if entry.kind.name == "GROUP":
        return _members(entry.cfg, index)
    return {name: entry.cfg}


def _members(group: Mapping[str, Any], index: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    found: dict[str, Mapping[str, Any]] = {}
    for item in _items(group):
        name = item.get("group", item.get("task"))
        if isinstance(name, str) and name in index:
            found |= {task: {**config, **_overrides(item)} for task, config in _leaves(name, index).items()}
        elif "group" in item:  # a group written out within this one
            found |= _members(item, index)
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
    generation = config.get("generation_kwargs") or {}
    temperature = float(generation.get("temperature", 0.0))
    if generation.get("do_sample", temperature > 0):
        return f"asks to sample (temperature {temperature:g}), and only greedy decoding gives every rank the same"
    return None
