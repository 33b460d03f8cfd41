"""Evaluation examples as questions to a model, and whether their answers can be right."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from trex_ds.data.encoding import end_length, template_warnings, turn_ends
from trex_ds.data.reach import Reach
from trex_ds.data.store import Store
from trex_ds.distributed import rank
from trex_ds.evaluation.generation import Question, answer_texts
from trex_ds.intuition.scores import IntuitionResult
from trex_ds.tasks.base import Example, normalized
from trex_ds.tasks.source import source_of

if TYPE_CHECKING:
    from trex_ds.training.recipe import Recipe

log = logging.getLogger(__name__)


def check_answers(recipe: Recipe, tokenizer: Any, store: Store, evaluation: Sequence[Example]) -> None:
    """Say what other programs would do with the chat template, and which evaluation answers are never generated whole.

    Args:
        recipe: of the job.
        tokenizer: of its model.
        store: its examples.
        evaluation: all evaluation examples of the store.
    """
    warnings = list(template_warnings(tokenizer))
    reach = {name: Reach(name, recipe.evaluation.max_new_tokens) for name in store.counts}
    end = end_length(tokenizer)
    for example, length in zip(evaluation, store.evaluation_answer_lengths().tolist(), strict=True):
        if not example.plain:
            reach[example.task].add(length - end)
    warnings += [found.describe() for found in reach.values() if found.beyond]
    if rank() == 0:
        for line in warnings:
            log.warning("%s", line)


def to_question(
    recipe: Recipe,
    tokenizer: Any,
    store: Store,
    intuition: IntuitionResult | None,
    example: Example,
    prompt: list[int],
    answer: list[int],
) -> Question:
    """The question of one example.

    Args:
        recipe: of the job.
        tokenizer: of its model.
        store: its examples.
        intuition: with the scores of the example's text; None for a method that takes none.
        example: of the store.
        prompt: token ids of its prompt.
        answer: token ids of its answer, with what ends it.
    """
    scores = None if intuition is None else intuition.of([example.text])[0]
    number = list(store.counts).index(example.task) if recipe.adapter.needs_tasks else None
    (text,) = answer_texts(tokenizer, [answer], turn_ends(tokenizer))
    same = example.plain or normalized(text) == normalized(example.answer)
    score = source_of(recipe.tasks[store.entry[example.task]]).scorer()
    return Question(example, score, prompt, scores, number, None if same else text)
