"""Tasks of lm-evaluation-harness with their data: from a mirror, from kept copies, or from the hub."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from trex_ds.files import atomic_path, cache_folder, make_in_cache
from trex_ds.tasks.harness.draws import alike_each_time, fixed_draws
from trex_ds.tasks.harness.index import manager, name_problem, quiet, refusal


@dataclass(frozen=True)
class Loaded:
    """Tasks of lm-eval, ready to render and to evaluate."""

    tasks: dict[str, Any]
    """Single tasks by name: lm-eval's ConfigurableTask."""
    members: dict[str, tuple[str, ...]]
    """Members by each name that was asked for: the single tasks that it expands to."""
    groups: dict[str, Any]
    """lm-eval's Group objects among them and within them, by name."""

    @classmethod
    def merged(cls, parts: Sequence[Loaded]) -> Loaded:
        """All tasks of several loads."""
        return cls(
            {name: task for part in parts for name, task in part.tasks.items()},
            {name: members for part in parts for name, members in part.members.items()},
            {name: group for part in parts for name, group in part.groups.items()},
        )


def load_tasks(
    names: Sequence[str], mirror: str | Path | None = None, copies: Path | None = None, only_copies: bool = False
) -> Loaded:
    """Load tasks, groups and tags of lm-eval by name.

    Args:
        names: as lm-eval spells them, such as boolq, mmlu or anli.
        mirror: a folder whose `<hub id>` subfolders stand in for hub datasets.
        copies: a folder that keeps every dataset that is loaded, and from which it is taken first.
        only_copies: take nothing that `copies` does not have; for machines without hub and mirror.

    Raises:
        ValueError: an unknown or unusable name, a dataset that cannot be loaded, or a task that is
            in two of the names.
    """
    problems = [problem for name in names if (problem := name_problem(name) or refusal(name))]
    if problems:
        raise ValueError("; ".join(problems))
    from lm_eval.api.task import ConfigurableTask

    tasks: dict[str, Any] = {}
    groups: dict[str, Any] = {}
    members: dict[str, tuple[str, ...]] = {}
    for name in dict.fromkeys(names):
        shelf = _Shelf(mirror, copies, only_copies)
        with quiet(), _datasets_from(shelf, name), alike_each_time(), fixed_draws():
            try:
                found = manager(name).load([name])
            except _DatasetError:
                raise
            except Exception as error:  # it renders each task's first document, by functions of the task's own
                hint = (
                    "install the package it needs, in the version it needs, or take another task"
                    if isinstance(error, ImportError)
                    else "the data may lack a field or have a label out of range"
                )
                raise ValueError(
                    f"lm_eval:{name}: lm-eval cannot set up the task: {type(error).__name__}: {error}; {hint}"
                ) from error
        for task, loaded in found["tasks"].items():
            if not isinstance(loaded, ConfigurableTask):
                raise ValueError(f"lm_eval:{name}: {task} is of lm-eval's old kind without a config; take another task")
            if task in tasks:
                other = next(known for known, inside in members.items() if task in inside)
                raise ValueError(f"lm_eval:{name} and lm_eval:{other} both have the task {task}; remove one of them")
            tasks[task] = loaded
        members[name] = tuple(found["tasks"])
        groups |= found["groups"]
    return Loaded(tasks, members, groups)


def load_kept(folders: Mapping[str, Path]) -> Loaded | None:
    """Tasks whose datasets were copied by `load_tasks` when the data was prepared; None if there are none.

    Args:
        folders: by name of the task, group or tag, the folder of the copies.

    Raises:
        ValueError: as `load_tasks`, or a copy is missing.
    """
    parts = [load_tasks([name], copies=folder, only_copies=True) for name, folder in folders.items()]
    return Loaded.merged(parts) if parts else None


class _DatasetError(ValueError):
    """A dataset is out of reach."""


@dataclass(frozen=True)
class _Shelf:
    """Places that datasets are taken from and kept in."""

    mirror: str | Path | None
    copies: Path | None
    only_copies: bool

    def load(self, original: Callable[..., Any], task: str, path: str, name: str | None, settings: dict) -> Any:
        """What `original(path, name, **settings)`, datasets.load_dataset, gives, but from nearer by."""
        import datasets

        copy = None if self.copies is None else self.copies / _digest(path, name, settings)
        if copy is not None and copy.is_dir():
            return datasets.load_from_disk(str(copy))
        if self.only_copies:
            raise _DatasetError(
                f"lm_eval:{task}: no copy of the dataset {_shown(path, name)} in {self.copies}; prepare the data again"
            )
        folder = None if self.mirror is None else Path(self.mirror) / path
        try:
            if folder is not None and folder.is_dir():
                # By default datasets caches a folder by its name, and gives what a folder of that name once held.
                cache = str(make_in_cache(cache_folder() / "datasets" / mirror_fingerprint(folder)))
                dataset = original(str(folder), name, **{"cache_dir": cache, **settings})
            else:
                dataset = original(path, name, **settings)
        except Exception as error:  # of the hub, of the network, of a dozen file formats
            where = f"{folder} of the mirror" if folder and folder.is_dir() else "the hub"
            raise _DatasetError(
                f"lm_eval:{task}: the dataset {_shown(path, name)} cannot be loaded from {where}: "
                f"{type(error).__name__}: {error}; check the connection, or put it into a mirror folder as {path}/"
            ) from error
        if copy is not None:
            with atomic_path(copy) as temporary:
                dataset.save_to_disk(str(temporary))
        return dataset


@contextmanager
def _datasets_from(shelf: _Shelf, task: str) -> Iterator[None]:
    # The data is redirected below lm-eval and not in its configs: a config with another dataset_path,
    # handed to TaskManager, loses the rest of the registered YAML, and a group has dozens of them.
    import datasets

    original = datasets.load_dataset

    def load_dataset(path: str, name: str | None = None, **settings: Any) -> Any:
        return shelf.load(original, task, path, name, settings)

    with mock.patch.object(datasets, "load_dataset", load_dataset):
        yield


def mirror_fingerprint(folder: Path) -> str:
    """A digest of the names and contents of all files in `folder`."""
    digest = hashlib.sha256()
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        with file.open("rb") as stream:
            content = hashlib.file_digest(stream, "sha256").hexdigest()
        digest.update(f"{file.relative_to(folder)}\0{file.stat().st_size}\0{content}\n".encode())
    return digest.hexdigest()[:16]


def hub_fingerprint(task: str, path: str, name: str | None) -> str:
    """The version of a hub dataset, as `datasets` would load it now (offline: of its cache)."""
    import datasets

    try:
        with quiet():
            return str(datasets.load_dataset_builder(path, name).hash)
    except Exception as error:
        raise ValueError(
            f"lm_eval:{task}: the dataset {_shown(path, name)} cannot be found on the hub: {type(error).__name__}: "
            f"{error}; check the connection, or put it into a mirror folder as {path}/"
        ) from error


def _digest(path: str, name: str | None, settings: dict[str, Any]) -> str:
    text = json.dumps([path, name, settings], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _shown(path: str, name: str | None) -> str:
    return f"{path!r} ({name})" if name else repr(path)
