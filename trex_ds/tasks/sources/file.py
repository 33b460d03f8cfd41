"""`file:PATH`: the user's own examples, a JSON-lines or Parquet file or a folder of such files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from trex_ds.tasks.base import Example, Scorer, Split, exact_match
from trex_ds.tasks.reading import content_digest, data_files, file_rows
from trex_ds.tasks.records import columns_problems
from trex_ds.tasks.splitting import Table, split_examples

if TYPE_CHECKING:
    from trex_ds.tasks.config import TaskConfig

_PREFIX = "file:"


def problems(location: str, config: TaskConfig) -> list[str]:
    """Files that do not exist or are of another kind, and columns that mean nothing."""
    found = _path_problems("source", location)
    if config.evaluation_source is not None:
        if config.evaluation_source.startswith(_PREFIX):
            found += _path_problems("evaluation_source", config.evaluation_source.removeprefix(_PREFIX))
        else:
            found.append(f"evaluation_source: {config.evaluation_source!r} does not begin with {_PREFIX}")
    return found + columns_problems(config.columns)


def unused(config: TaskConfig) -> list[str]:
    """Fields that have no effect."""
    one_sided = 0 in (config.train_examples, config.evaluation_examples)
    return ["options", *(["evaluation_fraction"] if one_sided or config.evaluation_source is not None else [])]


def fingerprint(location: str, config: TaskConfig, mirror: str | None) -> str:
    """Content and names of the files."""
    paths = [Path(location)]
    if config.evaluation_source is not None:
        paths.append(Path(config.evaluation_source.removeprefix(_PREFIX)))
    return " ".join(content_digest(data_files(p), p if p.is_dir() else p.parent) for p in paths)


def scorer(location: str, config: TaskConfig) -> Scorer:
    """Equality with the reference answer."""
    return exact_match


def read(location: str, config: TaskConfig, mirror: str | None) -> Iterator[tuple[Split, Example]]:
    """The examples as `split_examples` gives them.

    Rows that name no task belong to one that bears the name of the source's file (without its
    ending) or folder; those of the evaluation source too.

    Raises:
        ValueError: bad rows, files that cannot be read, or as `split_examples`.
    """
    path = Path(location)
    evaluation = None
    if config.evaluation_source is not None:
        evaluation = _table(Path(config.evaluation_source.removeprefix(_PREFIX)), config)
    name = path.resolve().name if path.is_dir() else path.stem
    return split_examples(_table(path, config), evaluation, name, config)


def _table(path: Path, config: TaskConfig) -> Table:
    files = data_files(path)
    return Table(str(path), lambda: file_rows(files, config.columns))


def _path_problems(field: str, location: str) -> list[str]:
    try:
        data_files(Path(location))
    except ValueError as error:
        return [f"{field}: {error}"]
    return []
