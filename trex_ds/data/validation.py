"""Reading a recipe's tasks as training would, to say what they hold and what would stop training."""

from __future__ import annotations

import json
from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np

from trex_ds.data.config import DataConfig
from trex_ds.data.encoding import Encoded, encoded_batches, end_length, template_warnings
from trex_ds.data.reach import Reach
from trex_ds.data.tokenizing import control_tokens
from trex_ds.progress import Progress
from trex_ds.seeding import text_digest
from trex_ds.tasks.base import Example, Split
from trex_ds.tasks.config import TaskConfig
from trex_ds.tasks.source import source_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_BATCH = 256


@dataclass
class TaskReport:
    """What one task of one source holds."""

    source: str
    task: str
    train: int = 0
    evaluation: int = 0
    lengths: Counter[int] = field(default_factory=Counter)
    """How many examples, of training and evaluation, have so many tokens of prompt and answer."""
    too_long: int = 0
    """Training examples longer than data.max_length, which are left out."""
    empty_answers: int = 0
    unsupervised: int = 0
    """Training examples of which only the end of sequence is learned."""
    duplicates: int = 0
    """Training examples that repeat the prompt and the answer of another of the task."""
    leaked: int = 0
    """Training examples whose prompt is evaluated, in whichever task."""
    unreachable: int = 0
    """Evaluation examples whose answer has more tokens than are generated."""
    control: int = 0
    """Examples with names of the tokenizer's special tokens in their texts."""

    def quantile(self, share: float) -> int:
        """The length that `share` of the examples do not exceed; 0.0 is the shortest, 1.0 the longest."""
        rest = max(1, share * self.lengths.total())
        for length in sorted(self.lengths):
            rest -= self.lengths[length]
            if rest <= 0:
                break
        return length


@dataclass
class Validation:
    """What a recipe's tasks hold."""

    tasks: list[TaskReport]
    problems: list[str]
    """What would stop training, one line a problem or more."""
    warnings: list[str]
    """Warnings: what would not stop training, but is seldom intended."""


def validate_tasks(
    configs: Sequence[TaskConfig],
    data: DataConfig,
    tokenizer: PreTrainedTokenizerBase,
    max_new_tokens: int,
    progress: bool = False,
) -> Validation:
    """Read every source once and encode its examples; memory grows by 16 bytes for each.

    What stops one source is noted as a problem, and the others are read all the same.

    Args:
        configs: the sources.
        data: how examples become tokens.
        tokenizer: the model's.
        max_new_tokens: how many tokens are generated to answer an evaluation example.
        progress: show a bar for each source.
    """
    try:
        warnings, end = list(template_warnings(tokenizer)), end_length(tokenizer)
    except ValueError as error:
        return Validation([], [f"model.name: {error}"], [])
    names = control_tokens(tokenizer)
    found = Validation([], [problem] if (problem := data.mirror_problem()) else [], warnings)
    digests: list[_Digests] = []
    for number, config in enumerate(configs):
        tasks: dict[str, tuple[TaskReport, _Digests, Reach]] = {}
        first: dict[str, str | None] = {}
        try:
            stream = source_of(config, data.mirror).examples()
            with Progress(stream, desc=config.source, unit=" examples", shown=progress) as bar:
                for split, example, row in chain.from_iterable(encoded_batches(bar, tokenizer, data)):
                    if example.task not in tasks:
                        report = TaskReport(config.source, example.task)
                        tasks[example.task] = report, _Digests(), Reach(example.task, max_new_tokens)
                    report, seen, reach = tasks[example.task]
                    answer = row.answer_length - (1 if example.plain else end)
                    _count(report, seen, split, example, row, data.max_length)
                    report.unsupervised += split == "train" and answer <= 0
                    if split == "evaluation" and not example.plain:
                        reach.add(answer)
                    if name := names.search(_said(example)):
                        report.control += 1
                        literal = data.escape_control_tokens and not example.plain
                        first.setdefault(example.task, None if literal else name.group())
        except ValueError as error:
            found.problems.append(f"tasks.{number}: {error}")
        for report, seen, reach in tasks.values():
            found.tasks.append(report)
            digests.append(seen)
            report.unreachable = reach.beyond
            if first.get(report.task):
                found.warnings.append(
                    f"task {report.task!r}: {report.control} examples have names of special tokens in their texts, "
                    f"such as {first[report.task]!r}, and are read as having those tokens; "
                    "data.escape_control_tokens: true has them read as text, but for lm_eval tasks"
                )
            if reach.beyond:
                found.warnings.append(reach.describe())
    for report in found.tasks:
        if report.train and report.too_long == report.train:
            found.problems.append(
                f"task {report.task!r}: all {report.train} training examples are longer than data.max_length "
                f"{data.max_length}; raise it or remove the task"
            )
    for task, count in Counter(report.task for report in found.tasks).items():
        if count > 1:
            sources = ", ".join(report.source for report in found.tasks if report.task == task)
            found.problems.append(f"{count} tasks are named {task!r}, of {sources}; rename all but one")
    if not any(report.train for report in found.tasks) and not found.problems:
        found.problems.append("no task has a training example; raise train_examples of one")
    _compare(found.tasks, digests)
    return found


@dataclass
class _Digests:
    """64 bits for each example, in place of its text."""

    train: array[int] = field(default_factory=lambda: array("q"))
    """Lengths of prompts with their answers."""
    prompts: array[int] = field(default_factory=lambda: array("q"))
    """Lengths of the prompts of the same examples."""
    evaluated: array[int] = field(default_factory=lambda: array("q"))
    """Lengths of the evaluation examples' prompts."""


def _said(example: Example) -> str:
    """All texts of an example."""
    return f"{example.text}\n{example.answer}\n{json.dumps(example.conversation, ensure_ascii=False)}"


def _count(report: TaskReport, seen: _Digests, split: Split, example: Example, row: Encoded, max_length: int) -> None:
    report.lengths[len(row.ids)] += 1
    report.empty_answers += not example.answer.strip()
    if split == "evaluation":
        report.evaluation += 1
        seen.evaluated.append(text_digest(example.text))
        return
    report.train += 1
    report.too_long += len(row.ids) > max_length
    seen.train.append(text_digest(f"{example.text}\0{example.answer}"))
    seen.prompts.append(text_digest(example.text))


def _compare(reports: Sequence[TaskReport], digests: Sequence[_Digests]) -> None:
    evaluated = np.concatenate([np.zeros(0, np.int64), *(np.array(seen.evaluated, np.int64) for seen in digests)])
    for report, seen in zip(reports, digests, strict=True):
        report.duplicates = len(seen.train) - len(np.unique(np.array(seen.train, np.int64)))
        report.leaked = int(np.isin(np.array(seen.prompts, np.int64), evaluated).sum())
