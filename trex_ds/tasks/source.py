"""What a kind of task source can do. Each kind is a class in a module of `trex_ds.tasks.sources`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from trex_ds.tasks.base import Example, Scorer, Split, exact_match
from trex_ds.tasks.config import TaskConfig
from trex_ds.tasks.registry import kinds


class Source(ABC):
    """One entry of a recipe's tasks. Making one reads nothing and checks nothing.

    Args:
        location: what follows the prefix in `config.source`.
        config: the entry.
        mirror: a folder whose `<hub id>` subfolders stand in for hub datasets, or None.
    """

    plain: ClassVar[bool] = False
    """Whether its examples are plain, as `Example.plain` says; all of a kind are or none."""

    def __init__(self, location: str, config: TaskConfig, mirror: str | None = None):
        self.location = location
        self.config = config
        self.mirror = mirror

    @abstractmethod
    def problems(self) -> list[str]:
        """Checks of the config that take milliseconds: one line a problem, headed by the field's name.

        A library that takes longer to import is not imported here.
        """

    def library_problems(self) -> list[str]:
        """Checks that need the source's library; only called if nothing else is wrong with the recipe."""
        return []

    @abstractmethod
    def no_effect(self) -> list[str]:
        """Names of the config's fields that change nothing for this source."""

    @abstractmethod
    def fingerprint(self) -> str:
        """Changes whenever `examples` gives something else although the config is the same; cheap beside it.

        A file's content and a library's version belong to it.

        Raises:
            ValueError: the data cannot be reached.
        """

    @abstractmethod
    def examples(self) -> Iterator[tuple[Split, Example]]:
        """The examples, capped as the config says, in an order that only the config and the data decide.

        A stream: memory does not grow with the number of training examples.

        Raises:
            ValueError: data that cannot be used; names file and line.
        """

    def scorer(self) -> Scorer | None:
        """How generated answers are scored; None: lm-evaluation-harness asks and scores."""
        return exact_match

    def keep_for_evaluation(self, folder: Path) -> None:
        """Copy into `folder` what evaluation reads beside the examples; most kinds need nothing and make no folder."""
        return


def source_of(config: TaskConfig, mirror: str | None = None) -> Source:
    """The source of an entry whose prefix is known."""
    prefix, _, location = config.source.partition(":")
    return kinds()[prefix](location, config, mirror)
