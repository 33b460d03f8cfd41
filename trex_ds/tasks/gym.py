"""`gym:NAME`: procedural tasks of reasoning-gym, made from a seed; nothing is downloaded."""

from __future__ import annotations

import difflib
import logging
import os
from collections.abc import Collection, Mapping
from dataclasses import fields
from functools import cached_property
from typing import TYPE_CHECKING, Any

from trex_ds.tasks.base import Example, Task
from trex_ds.tasks.seeding import stable_hash

if TYPE_CHECKING:
    from trex_ds.tasks.config import TaskConfig

logger = logging.getLogger(__name__)

TRAIN_EXAMPLES = 1000
EVALUATION_EXAMPLES = 100

# Their scorers pass the generated text to eval() or sympy's parse_expr(): it could run any code, and
# 9**9**9 would hang the job.
RUNS_GENERATED_TEXT = frozenset(
    {
        *("binary_matrix", "countdown", "intermediate_integration", "n_queens", "polynomial_multiplication"),
        *("puzzle24", "simple_integration", "spiral_matrix", "string_insertion"),
    }
)
# They iterate over sets of strings, so what they make depends on Python's hash seed.
DEPENDS_ON_HASH_SEED = frozenset({"codeio", "isomorphic_strings", "list_functions", "ransom_note"})

# How many times the wanted examples are made at most, in search of distinct prompts.
_ATTEMPTS = 2
_SOLVED = 1.0 - 1e-9
_OWN_FIELDS = {"seed": "seed", "size": "train_examples and evaluation_examples"}


class SolvedByOwnScorer:
    """Scores by the gym task's own scorer: 1.0 where it gives full marks, else 0.0.

    Partial marks do not count. Many scorers give some to any wrong answer: 0.01 or 0.05 for
    trying, up to 0.9 for a word with one letter wrong, or the share of the text that the answer
    makes up. Their mean is no accuracy and cannot be compared between tasks.
    Text that the scorer fails on is a wrong answer. White space around the text is dropped.
    """

    def __init__(self, name: str, options: Mapping[str, Any]):
        self.name = name
        self.options = dict(options)

    def __call__(self, example: Example, generated: str) -> float:
        """1.0 or 0.0."""
        try:
            mark = self._dataset.score_answer(generated.strip(), example.record)
        except Exception as error:  # scorers parse free text, each with its own exceptions
            logger.debug("%s: the scorer failed on %r: %r", self.name, generated, error)
            return 0.0
        return float(mark >= _SOLVED)

    def __reduce__(self) -> tuple[Any, ...]:
        # The dataset is left out: some hold functions that cannot be pickled.
        return SolvedByOwnScorer, (self.name, self.options)

    @cached_property
    def _dataset(self) -> Any:
        return _create(self.name, self.options, seed=0, size=1)


def problems(name: str, config: TaskConfig) -> list[str]:
    """A task that reasoning-gym does not have or that cannot be used, and options it does not take."""
    from reasoning_gym.factory import DATASETS

    if name not in DATASETS:
        near = difflib.get_close_matches(name, DATASETS, n=1)
        hint = f"did you mean gym:{near[0]}?" if near else "reasoning-gym's GALLERY.md shows all"
        return [f"source: reasoning-gym has no task {name!r}; {hint}"]
    if name in RUNS_GENERATED_TEXT:
        return [f"source: the scorer of gym:{name} runs the generated text as Python code; take another task"]
    config_class = DATASETS[name][1]
    known = [field.name for field in fields(config_class) if field.name not in _OWN_FIELDS]
    found = []
    for option in config.options:
        if option in _OWN_FIELDS:
            found.append(f"options: {option!r} is given by {_OWN_FIELDS[option]} of the task, not here")
        elif option not in known:
            near = difflib.get_close_matches(option, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
            found.append(f"options: gym:{name} has no option {option!r}; {hint}")
    if not found:
        try:
            config_class(**config.options).validate()
        except Exception as error:  # mostly AssertionError, and TypeError for wrong types
            found.append(f"options: gym:{name} does not take {config.options}: {error}")
    return found


def unused(config: TaskConfig) -> list[str]:
    """Fields that have no effect."""
    return ["evaluation_source", "evaluation_fraction"]


def load(name: str, config: TaskConfig) -> list[Task]:
    """The one task `name`.

    Train and evaluation examples have distinct prompts. Their seeds are hashes of the config's:
    reasoning-gym makes example i of seed s from s + i, so those of s and s + 1 are nearly the same.

    Raises:
        ValueError: the task has no single reference answer, or no training example is left.
    """
    if name in DEPENDS_ON_HASH_SEED and os.environ.get("PYTHONHASHSEED", "random") == "random":
        logger.warning(
            "gym:%s makes other examples in every process; set PYTHONHASHSEED=0 to make runs repeatable", name
        )
    evaluation = _draw(name, config, "evaluation", config.evaluation_examples or EVALUATION_EXAMPLES, set())
    score = SolvedByOwnScorer(name, config.options)
    if not score(evaluation[0], evaluation[0].answer):
        raise ValueError(f"gym:{name}: its scorer does not accept its own reference answer; take another task")
    prompts = {example.prompt for example in evaluation}
    train = _draw(name, config, "train", config.train_examples or TRAIN_EXAMPLES, prompts)
    if not train:
        raise ValueError(
            f"gym:{name}: its {len(evaluation)} evaluation examples have all the prompts it makes, none is left "
            "for training; lower evaluation_examples, or make the task wider by its options"
        )
    return [Task(name, train, evaluation, score, config.weight)]


def _draw(name: str, config: TaskConfig, split: str, wanted: int, taken: Collection[str]) -> list[Example]:
    """Up to `wanted` examples with distinct prompts, none of them in `taken`."""
    seed = stable_hash(config.seed, split, name)
    dataset = _create(name, config.options, seed=seed, size=_ATTEMPTS * wanted)
    drawn: dict[str, Example] = {}
    num_made = num_taken = 0
    while len(drawn) < wanted and num_made < _ATTEMPTS * wanted:
        entry = dataset[num_made]
        num_made += 1
        prompt, answer = entry["question"], entry["answer"]
        if not isinstance(answer, str):
            raise ValueError(
                f"gym:{name}: an example has {answer!r} for an answer, so there is nothing to train on; "
                "take a task with a single reference answer"
            )
        if prompt in taken:
            num_taken += 1
        elif prompt not in drawn:
            drawn[prompt] = Example(prompt, answer, name, record=entry)
    if num_taken:
        logger.info("gym:%s: left out %d %s examples with an evaluation prompt", name, num_taken, split)
    if len(drawn) < wanted:
        logger.warning(
            "gym:%s: only %d %s examples instead of %d: of %d made, the others repeat a prompt",
            *(name, len(drawn), split, wanted, num_made),
        )
    return list(drawn.values())


def _create(name: str, options: Mapping[str, Any], *, seed: int, size: int) -> Any:
    import reasoning_gym

    try:
        return reasoning_gym.create_dataset(name, seed=seed, size=size, **options)
    except Exception as error:
        raise ValueError(f"gym:{name} cannot be made with options {dict(options)}: {error}") from error
