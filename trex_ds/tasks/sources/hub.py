"""`hub:ID`: a dataset of the Hugging Face hub, streamed, or of a folder that mirrors the hub."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trex_ds.tasks.base import Example, Split
from trex_ds.tasks.reading import content_digest
from trex_ds.tasks.records import Columns, Row, check_columns, columns_problems
from trex_ds.tasks.registry import register
from trex_ds.tasks.source import Source
from trex_ds.tasks.splitting import Table, split_examples
from trex_ds.tasks.wording import unknown

_OPTIONS = ("config", "split", "evaluation_split")
_TRAIN_SPLIT = "train"


@register("hub")
class HubSource(Source):
    """Examples from a dataset of the hub; answers are scored by equality with the reference answer."""

    def problems(self) -> list[str]:
        """An id of the wrong form, options that a dataset does not take, and columns that mean nothing."""
        found = []
        options = self.config.options
        if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", self.location):
            found.append(
                f"source: {self.location!r} is not a hub id of the form owner/name; configuration and splits go into "
                "options: {config: NAME, split: train, evaluation_split: validation}"
            )
        for option, value in options.items():
            if option not in _OPTIONS:
                found.append(f"options: {unknown(option, _OPTIONS, 'option')}")
            elif not isinstance(value, str) or not value:
                found.append(f"options: {option} must be a name, got {value!r}")
        if "evaluation_split" in options and options["evaluation_split"] == self._train_split:
            found.append(f"options: split and evaluation_split are both {self._train_split!r}; leave the latter out")
        return found + columns_problems(self.config.columns)

    def no_effect(self) -> list[str]:
        """A source for evaluation, which is an option here, and the fraction where it decides nothing."""
        one_sided = 0 in (self.config.train_examples, self.config.evaluation_examples)
        fraction = ["evaluation_fraction"] if one_sided or "evaluation_split" in self.config.options else []
        return ["evaluation_source", *fraction]

    def fingerprint(self) -> str:
        """The content of the mirror's folder, or the commit that the hub's dataset is at.

        Raises:
            ValueError: the dataset is in neither.
        """
        if (folder := self._mirrored) is not None:
            files = sorted(file for file in folder.rglob("*") if file.is_file())
            return content_digest(files, folder)
        from huggingface_hub import HfApi

        try:
            return str(HfApi().dataset_info(self.location).sha)
        except Exception as error:  # no network, no such dataset, no access: each with its own exceptions
            raise self._unavailable(error) from error

    def examples(self) -> Iterator[tuple[Split, Example]]:
        """The examples as `split_examples` gives them.

        Rows that name no task belong to one that bears the name of the dataset's configuration, or of the dataset.

        Raises:
            ValueError: the dataset or a split of it is not there, bad rows, or as `split_examples`.
        """
        evaluation = self.config.options.get("evaluation_split")
        return split_examples(
            self._table(self._train_split),
            None if evaluation is None else self._table(evaluation),
            self.config.options.get("config", self.location.rpartition("/")[2]),
            self.config,
        )

    @property
    def _train_split(self) -> str:
        return self.config.options.get("split", _TRAIN_SPLIT)

    @property
    def _mirrored(self) -> Path | None:
        folder = Path(self.mirror, self.location) if self.mirror is not None else None
        return folder if folder is not None and folder.is_dir() else None

    def _table(self, split: str) -> Table:
        name = f"hub:{self.location} {split}"

        def rows() -> Iterator[Row]:
            dataset = self._load(split)
            try:
                for number, row in enumerate(dataset, start=1):
                    if number == 1:
                        columns = Columns()
                        columns.see(row)
                        check_columns(columns, self.config.columns, name)
                    yield f"{name}: row {number}", row
            except OSError as error:
                raise self._unavailable(error) from error

        return Table(name, rows)

    def _load(self, split: str) -> Any:
        from datasets import load_dataset

        source = str(self._mirrored or self.location)
        try:
            # Streaming reads the files where they lie: no second copy is written, nor a whole split held.
            return load_dataset(source, self.config.options.get("config"), split=split, streaming=True)
        except Exception as error:  # a wrong split or configuration, no network, no access, damaged files
            raise self._unavailable(error) from error

    def _unavailable(self, error: Exception) -> ValueError:
        if self._mirrored is not None:
            return ValueError(f"hub:{self.location}, from {self._mirrored}, cannot be read: {error}")
        folder = "data.mirror is not set" if self.mirror is None else f"{self.mirror} has no folder {self.location}"
        return ValueError(
            f"hub:{self.location} cannot be read from the hub: {error}; check the spelling and log in, or put it into "
            f"a mirror ({folder})"
        )
