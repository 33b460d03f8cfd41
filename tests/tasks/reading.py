"""The examples of a config as lists, and files of rows to read them from."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow
from pyarrow import parquet

from trex_ds.tasks.base import Example
from trex_ds.tasks.config import TaskConfig
from trex_ds.tasks.source import source_of


@dataclass
class Splits:
    train: list[Example] = field(default_factory=list)
    evaluation: list[Example] = field(default_factory=list)


def read(source: str, mirror: str | Path | None = None, **settings: Any) -> Splits:
    splits = Splits()
    for split, example in source_of(TaskConfig(source, **settings), None if mirror is None else str(mirror)).examples():
        getattr(splits, split).append(example)
    return splits


def problems_of(config: TaskConfig) -> list[str]:
    """What is wrong with an entry, as the recipe that has it would say."""
    return config.problems() or config.library_problems()


def prompts(examples: Iterable[Example]) -> list[str]:
    return [example.prompt for example in examples]


def sums(start: int, end: int, **more: Any) -> list[dict[str, Any]]:
    return [{"prompt": f"{i} + 1 =", "answer": str(i + 1), **more} for i in range(start, end)]


def write(path: Path, records: list[dict[str, Any]]) -> str:
    """The records as JSON lines or Parquet, as the path's ending says; the source that reads them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        parquet.write_table(pyarrow.Table.from_pylist(records), path)
    else:
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return f"file:{path}"
