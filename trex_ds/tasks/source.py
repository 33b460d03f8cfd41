"""Sources of tasks: one entry in `SOURCES` for each prefix of `TaskConfig.source`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trex_ds.tasks.base import Example, Scorer, Split
from trex_ds.tasks.sources import file, gym, hub
from trex_ds.tasks.sources import lm_eval as harness

if TYPE_CHECKING:
    from trex_ds.tasks.config import TaskConfig
    from trex_ds.tasks.harness.loading import Loaded


@dataclass(frozen=True)
class Source:
    """A kind of source. Its functions take what follows the prefix, and the whole config.

    `mirror` is a folder whose `<hub id>` subfolders stand in for hub datasets, or None.
    """

    problems: Callable[[str, TaskConfig], list[str]]
    """Cheap checks of the config, one line a problem, headed by the field's name."""
    unused: Callable[[TaskConfig], list[str]]
    """Fields of the config that have no effect."""
    fingerprint: Callable[[str, TaskConfig, str | None], str]
    """Changes whenever what `read` gives changes for other reasons than the config (a file's content,
    a library's version); cheap beside `read`."""
    read: Callable[[str, TaskConfig, str | None], Iterator[tuple[Split, Example]]]
    """The examples, capped as the config says, in an order that only the config and the data decide.
    A stream: memory does not grow with the number of training examples. Raises ValueError for data that
    cannot be used, naming file and line."""
    scorer: Callable[[str, TaskConfig], Scorer | None]
    """How generated answers are scored; None: lm-evaluation-harness does it."""


SOURCES = {
    "gym": Source(gym.problems, gym.unused, gym.fingerprint, gym.read, gym.scorer),
    "file": Source(file.problems, file.unused, file.fingerprint, file.read, file.scorer),
    "hub": Source(hub.problems, hub.unused, hub.fingerprint, hub.read, hub.scorer),
    "lm_eval": Source(harness.problems, harness.unused, harness.fingerprint, harness.read, harness.scorer),
}


def source_problems(config: TaskConfig) -> list[str]:
    """What is wrong with `config`, as far as it can be told without loading the examples."""
    prefix, colon, location = config.source.partition(":")
    if not colon or prefix not in SOURCES:
        known = ", ".join(f"{name}:" for name in SOURCES)
        return [f"source: {config.source!r} does not begin with a known prefix; known: {known}"]
    source = SOURCES[prefix]
    beside = f" and evaluation_source {config.evaluation_source}" if config.evaluation_source else ""
    unused = [
        f"{name}: has no effect with source {config.source}{beside}; remove it"
        for name in source.unused(config)
        if getattr(config, name) != _default(config, name)
    ]
    return unused + source.problems(location, config)


def fingerprint(config: TaskConfig, mirror: str | None) -> str:
    """Changes whenever `read_examples(config)` gives something else though `config` is the same."""
    source, location = _resolve(config)
    return source.fingerprint(location, config, mirror)


def read_examples(config: TaskConfig, mirror: str | None) -> Iterator[tuple[Split, Example]]:
    """The examples of one config, streamed: see `Source.read`."""
    source, location = _resolve(config)
    return source.read(location, config, mirror)


def scorer(config: TaskConfig) -> Scorer | None:
    """How generated answers to the config's examples are scored; None: lm-evaluation-harness does it."""
    source, location = _resolve(config)
    return source.scorer(location, config)


def keep_benchmark_data(config: TaskConfig, mirror: str | None, folder: Path) -> None:
    """Copy into `folder` the datasets that lm-evaluation-harness evaluates the config's task on."""
    from trex_ds.tasks.harness.loading import load_tasks

    load_tasks([_resolve(config)[1]], mirror, copies=folder)


def load_benchmarks(folders: Mapping[str, Path]) -> Loaded | None:
    """lm-eval's tasks by name, each from the folder that `keep_benchmark_data` filled; None if there are none."""
    if not folders:
        return None
    from trex_ds.tasks.harness.loading import Loaded, load_tasks

    parts = [load_tasks([name], copies=folder, only_copies=True) for name, folder in folders.items()]
    return Loaded(*({k: v for part in parts for k, v in vars(part)[f].items()} for f in ("tasks", "members", "groups")))


def _resolve(config: TaskConfig) -> tuple[Source, str]:
    prefix, _, location = config.source.partition(":")
    return SOURCES[prefix], location


def _default(config: TaskConfig, name: str) -> Any:
    field = next(field for field in fields(config) if field.name == name)
    return field.default if field.default_factory is MISSING else field.default_factory()
