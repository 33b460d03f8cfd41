"""`hub:ID`: a dataset of the Hugging Face hub, streamed, or of a folder that mirrors the hub."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trex_ds.tasks.base import Example, Scorer, Split, exact_match
from trex_ds.tasks.reading import content_digest
from trex_ds.tasks.records import Columns, Row, check_columns, columns_problems
from trex_ds.tasks.splitting import Table, split_examples
from trex_ds.tasks.wording import unknown

if TYPE_CHECKING:
    from trex_ds.tasks.config import TaskConfig

_OPTIONS = ("config", "split", "evaluation_split")
_TRAIN_SPLIT = "train"


def problems(location: str, config: TaskConfig) -> list[str]:
    """An id of the wrong form, options that a dataset does not take, and columns that mean nothing."""
    found = []
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", location):
        found.append(
            f"source: {location!r} is no hub id of the form owner/name; configuration and splits go into "
            "options: {config: NAME, split: train, evaluation_split: validation}"
        )
    for option, value in config.options.items():
        if option not in _OPTIONS:
            found.append(f"options: {unknown(option, _OPTIONS, 'option')}")
        elif not isinstance(value, str) or not value:
            found.append(f"options: {option} must be a name, got {value!r}")
    if "evaluation_split" in config.options and config.options["evaluation_split"] == _train_split(config):
        found.append(f"options: split and evaluation_split are both {_train_split(config)!r}; leave the latter out")
    return found + columns_problems(config.columns)


def unused(config: TaskConfig) -> list[str]:
    """Fields that have no effect."""
    one_sided = 0 in (config.train_examples, config.evaluation_examples)
    fraction = ["evaluation_fraction"] if one_sided or "evaluation_split" in config.options else []
    return ["evaluation_source", *fraction]


def fingerprint(location: str, config: TaskConfig, mirror: str | None) -> str:
    """The content of the mirror's folder, or the commit that the hub's dataset is at.

    Raises:
        ValueError: the dataset is in neither.
    """
    if (folder := _mirrored(location, mirror)) is not None:
        files = sorted(file for file in folder.rglob("*") if file.is_file())
        return content_digest(files, folder)
    from huggingface_hub import HfApi

    try:
        return str(HfApi().dataset_info(location).sha)
    except Exception as error:  # no network, no such dataset, no access: each with its own exceptions
        raise _unavailable(location, mirror, error) from error


def scorer(location: str, config: TaskConfig) -> Scorer:
    """Equality with the reference answer."""
    return exact_match


def read(location: str, config: TaskConfig, mirror: str | None) -> Iterator[tuple[Split, Example]]:
    """The examples as `split_examples` gives them.

    Rows that name no task belong to one that bears the name of the dataset's configuration, or of the dataset.

    Raises:
        ValueError: the dataset or a split of it is not there, bad rows, or as `split_examples`.
    """
    evaluation = config.options.get("evaluation_split")
    return split_examples(
        _table(location, _train_split(config), config, mirror),
        None if evaluation is None else _table(location, evaluation, config, mirror),
        config.options.get("config", location.rpartition("/")[2]),
        config,
    )


def _table(location: str, split: str, config: TaskConfig, mirror: str | None) -> Table:
    name = f"hub:{location} {split}"

    def rows() -> Iterator[Row]:
        dataset = _load(location, split, config, mirror)
        try:
            for number, row in enumerate(dataset, start=1):
                if number == 1:
                    columns = Columns()
                    columns.see(row)
                    check_columns(columns, config.columns, name)
                yield f"{name}: row {number}", row
        except OSError as error:
            raise _unavailable(location, mirror, error) from error

    return Table(name, rows)


def _load(location: str, split: str, config: TaskConfig, mirror: str | None) -> Any:
    from datasets import load_dataset

    source = str(_mirrored(location, mirror) or location)
    try:
        # Streaming reads the files where they lie: no second copy is written, nor a whole split held.
        return load_dataset(source, config.options.get("config"), split=split, streaming=True)
    except Exception as error:  # a wrong split or configuration, no network, no access, damaged files
        raise _unavailable(location, mirror, error) from error


def _mirrored(location: str, mirror: str | None) -> Path | None:
    folder = Path(mirror, location) if mirror is not None else None
    return folder if folder is not None and folder.is_dir() else None


def _unavailable(location: str, mirror: str | None, error: Exception) -> ValueError:
    if _mirrored(location, mirror) is not None:
        return ValueError(f"hub:{location}, from {_mirrored(location, mirror)}, cannot be read: {error}")
    folder = "data.mirror is not set" if mirror is None else f"{mirror} has no folder {location}"
    return ValueError(
        f"hub:{location} cannot be read from the hub: {error}; check the spelling and log in, or put it into a "
        f"mirror ({folder})"
    )


def _train_split(config: TaskConfig) -> str:
    return config.options.get("split", _TRAIN_SPLIT)
