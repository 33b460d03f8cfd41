"""Where tasks come from: one entry in `SOURCES` for each prefix of `TaskConfig.source`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import MISSING, dataclass, fields
from typing import TYPE_CHECKING, Any

from trex_ds.distributed import on_rank_zero
from trex_ds.tasks import file, gym
from trex_ds.tasks.base import Task

if TYPE_CHECKING:
    from trex_ds.tasks.config import TaskConfig


@dataclass(frozen=True)
class Source:
    """A kind of source. Its functions take what follows the prefix, and the whole config."""

    load: Callable[[str, TaskConfig], list[Task]]
    problems: Callable[[str, TaskConfig], list[str]]
    """Cheap checks of the config, one line a problem, headed by the field's name."""
    unused: Callable[[TaskConfig], list[str]]
    """Fields of the config that have no effect."""


SOURCES = {
    "gym": Source(gym.load, gym.problems, gym.unused),
    "file": Source(file.load, file.problems, file.unused),
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


def load_tasks(configs: Sequence[TaskConfig]) -> list[Task]:
    """The tasks of all `configs`, in their order.

    A collective: rank 0 loads and the others get a copy. So files need to exist on its node alone,
    and all ranks have equal examples even where a source depends on the process that it runs in.

    Raises:
        ValueError: no config, a problem of any config (all of them are named), bad lines in a file,
            a task without train or evaluation examples, or two tasks of one name. Ranks other than
            0 get a RuntimeError that quotes it.
    """
    return on_rank_zero(lambda: _load(configs))


def _load(configs: Sequence[TaskConfig]) -> list[Task]:
    if not configs:
        raise ValueError("tasks: empty; give at least one, such as source: gym:letter_counting")
    problems = [f"tasks.{i}.{line}" for i, config in enumerate(configs) for line in source_problems(config)]
    if problems:
        raise ValueError("\n".join(problems))
    tasks: dict[str, Task] = {}
    origin: dict[str, str] = {}
    for config in configs:
        prefix, _, location = config.source.partition(":")
        for task in SOURCES[prefix].load(location, config):
            if task.name in tasks:
                raise ValueError(
                    f"two tasks are named {task.name!r}: one of {origin[task.name]}, one of {config.source}; "
                    "remove one, or give the examples of a file another task name"
                )
            tasks[task.name], origin[task.name] = task, config.source
    return list(tasks.values())


def _default(config: TaskConfig, name: str) -> Any:
    field = next(field for field in fields(config) if field.name == name)
    return field.default if field.default_factory is MISSING else field.default_factory()
