"""Splitting of a table's rows into training and evaluation examples, in memory that does not grow with the table."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trex_ds.seeding import Lowest, stable_fraction, text_digest
from trex_ds.tasks.base import Example, Split
from trex_ds.tasks.records import Columns, Row, check_columns, parse

if TYPE_CHECKING:
    from trex_ds.tasks.config import TaskConfig

logger = logging.getLogger(__name__)

_SHOWN = 20
_VALUES = re.compile(r'got .*|\[.*|"[^"]*"|\d+')


@dataclass(frozen=True)
class Table:
    """Rows that can be read more than once."""

    name: str
    """Name in errors and warnings."""
    rows: Callable[[], Iterator[Row]]
    """Reads them, from the first."""


def split_examples(
    source: Table, evaluation: Table | None, default_task: str, config: TaskConfig
) -> Iterator[tuple[Split, Example]]:
    """The examples of `source` for training and those of `evaluation`, or a part of the source's own, for evaluation.

    Everything is read twice: once to find what is wrong, to count and to choose what the caps leave,
    and once to yield, in the order of the rows, the evaluation table first.

    Without an evaluation table, a hash of seed and prompt says on which side an example falls: equal
    prompts stay together, and neither the order of rows nor rows added later move an example. A side
    that is capped at 0 leaves everything to the other. With an evaluation table, training examples
    whose prompt it has are dropped. Prompts are equal if the whole conversations are.

    Raises:
        ValueError: bad rows (all of them are counted, the first of each kind shown), columns that no row has, a
            table without rows, or a task without a train or an evaluation example. Raised before the first example
            is yielded.
    """
    survey = _Survey(config)
    for position, (split, example) in enumerate(_assigned(source, evaluation, default_task, config)):
        survey.add(position, split, example)
    survey.finish(source.name, evaluation)
    for position, (split, example) in enumerate(_assigned(source, evaluation, default_task, config)):
        if split is not None and survey.chose(position, split, example):
            yield split, example


def _assigned(
    source: Table, evaluation: Table | None, default_task: str, config: TaskConfig
) -> Iterator[tuple[Split | None, Example]]:
    """Every example with its side; None for a training example whose prompt is evaluated."""
    bad = _BadRows()
    seen = Columns()

    def examples(table: Table) -> Iterator[Example]:
        empty = True
        for where, row in table.rows():
            empty = False
            try:
                yield parse(row, default_task, config.columns, seen)
            except ValueError as error:
                bad.add(table.name, where, str(error))
        if empty:
            raise ValueError(
                f"{table.name}: no examples; give it rows with prompt and answer, or messages, such as "
                '{"prompt": "2 + 2 =", "answer": "4"}'
            )

    evaluated: set[int] = set()
    if evaluation is not None:
        for example in examples(evaluation):
            evaluated.add(text_digest(example.text))
            yield "evaluation", example
    for example in examples(source):
        if evaluation is None:
            yield ("evaluation" if _is_held_out(example, config) else "train"), example
        else:
            yield ("train" if text_digest(example.text) not in evaluated else None), example
    if config.columns and seen.names:
        check_columns(seen, config.columns, source.name)
    bad.finish()


class _BadRows:
    """What is wrong with rows, each fault once: rows of one fault differ in the values that the message quotes."""

    def __init__(self) -> None:
        self._rows: Counter[str] = Counter()
        self._first: dict[tuple[str, str], str] = {}
        self._alike: Counter[tuple[str, str]] = Counter()

    def add(self, table: str, where: str, problem: str) -> None:
        """Count a row."""
        self._rows[table] += 1
        kind = table, _VALUES.sub("", problem)
        if len(self._first) < _SHOWN:
            self._first.setdefault(kind, f"{where}: {problem}")
        if kind in self._first:
            self._alike[kind] += 1

    def finish(self) -> None:
        """Raise a ValueError with all of them, if there are any."""
        if not self._rows:
            return
        lines = [f"{table}: {count} bad row{'s' if count > 1 else ''}" for table, count in self._rows.items()]
        for kind, line in self._first.items():
            lines.append(line + (f" (and {self._alike[kind] - 1} more rows like it)" if self._alike[kind] > 1 else ""))
        rest = self._rows.total() - self._alike.total()
        raise ValueError("\n".join([*lines, *([f"... and {rest} more"] if rest else [])]))


def _is_held_out(example: Example, config: TaskConfig) -> bool:
    if config.evaluation_examples == 0 or config.train_examples == 0:
        return config.train_examples == 0
    return stable_fraction(config.seed, "split", example.text) < config.evaluation_fraction


class _Survey:
    """What the first reading finds: how many examples each task has, and which of them the caps leave."""

    def __init__(self, config: TaskConfig):
        self._config = config
        self._caps: dict[Split, int | None] = {
            "train": config.train_examples,
            "evaluation": config.evaluation_examples,
        }
        self._counts: dict[str, Counter[Split]] = {}
        self._chosen: dict[tuple[str, Split], Lowest] = {}
        self._dropped = 0

    def add(self, position: int, split: Split | None, example: Example) -> None:
        """Count an example; None is one that was dropped."""
        counts = self._counts.setdefault(example.task, Counter())
        if split is None:
            self._dropped += 1
            return
        counts[split] += 1
        if cap := self._caps[split]:
            self._chosen.setdefault((example.task, split), Lowest(cap)).add(self._key(example), position)

    def chose(self, position: int, split: Split, example: Example) -> bool:
        """Whether the caps leave this example."""
        cap = self._caps[split]
        if cap is None or cap == 0:
            return cap is None
        return self._chosen[example.task, split].has(self._key(example), position)

    def finish(self, source: str, evaluation: Table | None) -> None:
        """Warn of what was dropped or falls short; refuse tasks that lack a side."""
        missing = []
        for task, counts in self._counts.items():
            if any(not counts[split] and cap != 0 for split, cap in self._caps.items()):
                missing.append(
                    f"task {task!r} has {counts['train']} training and {counts['evaluation']} evaluation examples"
                )
        if missing:
            way_out = (
                "add examples, raise or lower evaluation_fraction, or name other data for evaluation"
                if evaluation is None
                else f"every task needs examples in both {source} and {evaluation.name}, with other prompts"
            )
            only = "with train_examples or evaluation_examples 0 one side will do"
            raise ValueError(f"{source}: {'; '.join(missing)}; at least one of each is needed: {way_out}; {only}")
        if evaluation is not None and self._dropped:
            logger.warning(
                "%s: dropped %d of %d training examples, whose prompts are in %s",
                *(source, self._dropped, self._dropped + self._total("train"), evaluation.name),
            )
        for task, counts in self._counts.items():
            for split, cap in self._caps.items():
                if cap is not None and cap > counts[split]:
                    logger.warning(
                        "%s: %s_examples is %d, task %r has only %d", source, split, cap, task, counts[split]
                    )

    def _total(self, split: Split) -> int:
        return sum(counts[split] for counts in self._counts.values())

    def _key(self, example: Example) -> int:
        return text_digest(f"{self._config.seed}\0{example.text}\0{example.answer}")
