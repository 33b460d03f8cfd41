"""`gym:NAME`: procedural tasks of reasoning-gym, made from a seed; nothing is downloaded."""

from __future__ import annotations

import io
import json
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import redirect_stdout
from functools import cache
from importlib.metadata import version
from typing import Any

from trex_ds.packaged import install
from trex_ds.seeding import stable_hash, text_digest
from trex_ds.tasks.base import Example, Scorer, Split
from trex_ds.tasks.gym_names import gym_tasks
from trex_ds.tasks.registry import register
from trex_ds.tasks.source import Source
from trex_ds.wording import did_you_mean, nearest

logger = logging.getLogger(__name__)

INSTALL = install("reasoning-gym", "gym")

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
# They iterate over sets, so what they make depends on Python's hash seed.
DEPENDS_ON_HASH_SEED = frozenset(
    {"codeio", "isomorphic_strings", "knight_swap", "list_functions", "ransom_note", "word_ladder"}
)

# How many times the wanted examples are made at most, in search of distinct prompts.
_ATTEMPTS = 2
_SOLVED = 1.0 - 1e-9
# Examples on which a task's scorer is tried out, what it must accept for none of them, and not for most.
_CHECKED = 8
_NONSENSE = ("", "zqxv", "I do not know.", "banana seven blue", "[[zqxv]]")
_GUESSES = ("0", "1", "-1", "yes", "True", "A", "[]", "0 0 0")
_SHOWN = 40
_OWN_FIELDS = {"seed": "seed", "size": "train_examples and evaluation_examples"}


class SolvedByOwnScorer:
    """Scores by the gym task's own scorer: 1.0 where it gives full marks, else 0.0.

    Partial marks do not count. Many scorers give some to any wrong answer: 0.01 or 0.05 for
    trying, up to 0.9 for a word with one letter wrong, or the share of the text that the answer
    makes up. Their mean is not an accuracy and cannot be compared between tasks.
    Text that the scorer fails on is a wrong answer. White space around the text is dropped.
    """

    def __init__(self, name: str, options: Mapping[str, Any]):
        self.name = name
        self.options = dict(options)

    def __call__(self, example: Example, generated: str) -> float:
        """1.0 or 0.0."""
        assert example.record is not None
        seed, size, index = (example.record[key] for key in ("seed", "size", "index"))
        dataset = _create(self.name, json.dumps(self.options, sort_keys=True), seed, size)
        # Made again rather than stored: entries hold what no file format keeps as it was.
        entry = dataset[index]
        if entry["question"] != example.prompt:
            raise RuntimeError(
                f"gym:{self.name} makes another example {index} of seed {seed} than when it was prepared"
            )
        return float(_solves(dataset, entry, generated))


def _solves(dataset: Any, entry: Mapping[str, Any], generated: str) -> bool:
    try:
        with redirect_stdout(io.StringIO()):  # some print what they fail on
            return bool(dataset.score_answer(generated.strip(), entry) >= _SOLVED)
    except Exception as error:  # scorers parse free text, each with its own exceptions
        logger.debug("the scorer of %s failed on %r: %r", type(dataset).__name__, generated, error)
        return False


@register("gym")
class GymSource(Source):
    """Examples that a task of reasoning-gym makes; answers are scored by the task's own scorer, full marks only."""

    def problems(self) -> list[str]:
        """A task that reasoning-gym does not have or that cannot be used, and options it does not have."""
        name, known_tasks = self.location, gym_tasks()
        if not known_tasks:
            return [f"source: gym:{name} needs reasoning-gym, which is not installed: {INSTALL}"]
        if name not in known_tasks:
            near = nearest(name, known_tasks)
            hint = f"did you mean gym:{near[0]}?" if near else "reasoning-gym's GALLERY.md shows all"
            return [f"source: reasoning-gym has no task {name!r}; {hint}"]
        if name in RUNS_GENERATED_TEXT:
            return [f"source: the scorer of gym:{name} runs the generated text as Python code; take another task"]
        if name in DEPENDS_ON_HASH_SEED and os.environ.get("PYTHONHASHSEED", "random") == "random":
            return [
                f"source: gym:{name} makes other examples in every process; set PYTHONHASHSEED=0, or take another task"
            ]
        found = []
        known = [option for option in known_tasks[name].options() if option not in _OWN_FIELDS]
        for option in self.config.options:
            if option in _OWN_FIELDS:
                found.append(f"options: {option!r} is given by {_OWN_FIELDS[option]} of the task, not here")
            elif option not in known:
                found.append(f"options: gym:{name} has no option {option!r}; {did_you_mean(option, known)}")
        return found

    def library_problems(self) -> list[str]:
        """Values of options that the task does not take."""
        from reasoning_gym.factory import DATASETS

        try:
            made = DATASETS[self.location][1](**self.config.options)
            if hasattr(made, "validate"):  # not all have it
                made.validate()
        except Exception as error:  # mostly AssertionError, and TypeError for wrong types
            return [f"options: gym:{self.location} does not take {self.config.options}: {error}"]
        return []

    def no_effect(self) -> list[str]:
        """What concerns data that exists already."""
        return ["evaluation_source", "evaluation_fraction", "columns"]

    def fingerprint(self) -> str:
        """Version of reasoning-gym."""
        seed = os.environ.get("PYTHONHASHSEED", "random") if self.location in DEPENDS_ON_HASH_SEED else ""
        return f"reasoning-gym {version('reasoning-gym')} {seed}"

    def scorer(self) -> Scorer:
        """The task's own, full marks only."""
        return SolvedByOwnScorer(self.location, self.config.options)

    def examples(self) -> Iterator[tuple[Split, Example]]:
        """The evaluation examples, then the training examples; all with distinct prompts.

        The seeds of the two are hashes of the config's: reasoning-gym makes example i of seed s from
        s + i, so those of s and s + 1 are nearly the same.

        Raises:
            ValueError: the task has no single reference answer, its scorer is of no use, or no training example is
                left.
        """
        config = self.config
        wanted = {
            "evaluation": EVALUATION_EXAMPLES if config.evaluation_examples is None else config.evaluation_examples,
            "train": TRAIN_EXAMPLES if config.train_examples is None else config.train_examples,
        }
        self._check_scorer()
        seen: set[int] = set()
        splits: tuple[Split, ...] = ("evaluation", "train")
        for split in splits:
            made = 0
            for example in self._draw(split, wanted[split], seen):
                made += 1
                yield split, example
            if wanted[split] and not made:
                raise ValueError(
                    f"gym:{self.location}: its {len(seen)} evaluation examples have all the prompts it makes, none is "
                    "left for training; lower evaluation_examples, or make the task wider by its options"
                )

    def _check_scorer(self) -> None:
        """Refuse a task whose scorer gives its own reference no full marks, or gives them to what answers nothing.

        Scorers may be tolerant: many accept any right solution, or text around it. But none may accept words that have
        nothing to do with the question. Nor may it accept one and the same guess, or what answers another question,
        more often than not.
        """
        dataset = self._create(stable_hash(self.config.seed, "check", self.location), _CHECKED)
        entries = [dataset[i] for i in range(_CHECKED)]
        answers = [_answer(self.location, entry).strip() for entry in entries]
        for entry, answer in zip(entries, answers, strict=True):
            if not _solves(dataset, entry, answer):
                shown = repr(answer[:_SHOWN])
                raise ValueError(
                    f"gym:{self.location}: its scorer does not accept its own reference answer {shown}; take another "
                    "task"
                )
        one_at_a_time = [*(([text], 0.0) for text in _NONSENSE), *(([text], 0.5) for text in _GUESSES)]
        for texts, most in (*one_at_a_time, (answers, 0.5)):
            tried = [(i, text) for i, answer in enumerate(answers) for text in texts if text != answer]
            taken = [(i, text) for i, text in tried if _solves(dataset, entries[i], text)]
            # "0" is right wherever 0.0 is.
            of_one_answer = len({answers[i] for i, _ in taken}) == 1 and most > 0
            if len(taken) > most * len(tried) and not of_one_answer:
                i, text = taken[0]
                raise ValueError(
                    f"gym:{self.location}: its scorer gives full marks to {len(taken)} of {len(tried)} answers that "
                    f"have nothing to do with the question, such as {text[:_SHOWN]!r} where {answers[i][:_SHOWN]!r} is "
                    "right, so its scores mean nothing; take another task"
                )

    def _draw(self, split: Split, wanted: int, seen: set[int]) -> Iterator[Example]:
        """Up to `wanted` examples whose prompts' hashes are not in `seen`, and are then."""
        if not wanted:
            return
        seed, size = stable_hash(self.config.seed, split, self.location), _ATTEMPTS * wanted
        dataset = self._create(seed, size)
        drawn = made = 0
        while drawn < wanted and made < size:
            entry = dataset[made]
            made += 1
            prompt, answer = entry["question"], _answer(self.location, entry)
            if (digest := text_digest(prompt)) not in seen:
                seen.add(digest)
                drawn += 1
                yield Example(prompt, answer, self.location, record={"seed": seed, "size": size, "index": made - 1})
        if drawn < wanted:
            logger.warning(
                "gym:%s: only %d %s examples instead of %d: of %d made, the others repeat a prompt",
                *(self.location, drawn, split, wanted, made),
            )

    def _create(self, seed: int, size: int) -> Any:
        return _create(self.location, json.dumps(self.config.options, sort_keys=True), seed, size)


def _answer(name: str, entry: Mapping[str, Any]) -> str:
    answer = entry["answer"]
    if not isinstance(answer, str):
        raise ValueError(
            f"gym:{name}: an example has {answer!r} for an answer, so there is nothing to train on; "
            "take a task with a single reference answer"
        )
    return answer


@cache
def _create(name: str, options: str, seed: int, size: int) -> Any:
    """The dataset; `options` as JSON."""
    import reasoning_gym

    try:
        return reasoning_gym.create_dataset(name, seed=seed, size=size, **json.loads(options))
    except Exception as error:
        raise ValueError(f"gym:{name} cannot be made with options {options}: {error}") from error
