"""Evaluation examples as questions to a model, and whether their answers can be right."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from trex_ds.data.encoding import end_length, template_warnings, turn_ends
from trex_ds.data.reach import Reach
from trex_ds.data.store import Store
from trex_ds.distributed import rank
from trex_ds.evaluation.config import EvaluationConfig
from trex_ds.evaluation.generation import Question, answer_texts
from trex_ds.intuition.scores import IntuitionResult
from trex_ds.protocols import Tokenizer
from trex_ds.tasks.base import Example, normalized
from trex_ds.tasks.config import TaskConfig
from trex_ds.tasks.source import source_of

log = logging.getLogger(__name__)


def check_answers(tokenizer: Tokenizer, store: Store, evaluation: Sequence[Example], config: EvaluationConfig) -> None:
    """Say what other programs would do with the chat template, and which evaluation answers are never generated whole.

    Args:
        tokenizer: of the base model.
        store: all examples.
        evaluation: all evaluation examples of the store.
        config: how long answers may be.
    """
    warnings = list(template_warnings(tokenizer))
    reach = {name: Reach(name, config.max_new_tokens) for name in store.counts}
    end = end_length(tokenizer)
    for example, length in zip(evaluation, store.evaluation_answer_lengths().tolist(), strict=True):
        if not example.plain:
            reach[example.task].add(length - end)
    warnings += [found.describe() for found in reach.values() if found.beyond]
    if rank() == 0:
        for line in warnings:
            log.warning("%s", line)


def check_positions(
    learned: int | None, model: str, examples: Sequence[tuple[Any, ...]], config: EvaluationConfig
) -> None:
    """Refuse prompts that leave no room for an answer among the positions that the model has learned.

    Args:
        learned: how many positions the model has an embedding for; None: any.
        model: its name.
        examples: each an example and the ids of its prompt, and maybe more.
        config: how long answers may be.

    Raises:
        ValueError: naming the first such prompt.
    """
    for example, ids, *_ in examples:
        if learned is not None and len(ids) + config.max_new_tokens > learned:
            raise ValueError(
                f"task {example.task!r}: an evaluation prompt of {len(ids)} tokens and evaluation.max_new_tokens, "
                f"{config.max_new_tokens}, are more than the {learned} positions that {model} has learned; it begins "
                f"with {example.text[:60]!r}; lower max_new_tokens, or leave such examples out"
            )


def contexts_of(example: Example) -> list[str]:
    """Texts whose intuition scores are needed to answer an example."""
    return [example.text, *(example.record or {}).get("contexts", ())]


def to_question(
    entries: Sequence[TaskConfig],
    tokenizer: Tokenizer,
    store: Store,
    intuition: IntuitionResult | None,
    example: Example,
    prompt: list[int],
    answer: list[int],
    *,
    by_task: bool,
) -> Question:
    """The question of one example.

    Args:
        entries: the recipe's tasks.
        tokenizer: of the base model.
        store: all examples.
        intuition: with the scores of the example's text; None for a method that takes none.
        example: of the store.
        prompt: token ids of its prompt.
        answer: token ids of its answer, with what ends it.
        by_task: whether the method takes the task's number.
    """
    scores = None if intuition is None else intuition.of([example.text])[0]
    number = list(store.counts).index(example.task) if by_task else None
    (text,) = answer_texts(tokenizer, [answer], turn_ends(tokenizer))
    same = example.plain or normalized(text) == normalized(example.answer)
    score = source_of(entries[store.entry[example.task]]).scorer()
    return Question(example, score, prompt, scores, number, None if same else text)
