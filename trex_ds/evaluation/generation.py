"""Answers by greedy generation, over all ranks, each evaluation example exactly once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Any

import torch
from torch import Tensor

from trex_ds.data.collator import Collator
from trex_ds.data.encoding import turn_ends
from trex_ds.distributed import agreed, gather_objects
from trex_ds.evaluation.batches import length_batches
from trex_ds.evaluation.dealing import deal
from trex_ds.protocols import CausalLM, Tokenizer
from trex_ds.tasks.base import Example, Scorer


@dataclass(frozen=True)
class Question:
    """An evaluation example, ready for the model."""

    example: Example
    score: Scorer | None
    """How its generated answer is scored; None: lm-evaluation-harness asks and scores."""
    input_ids: list[int]
    """Token ids of its prompt."""
    intuition: Tensor | None
    """Raw cosines of its text (num_clusters,); None for a method that takes none."""
    task_number: int | None = None
    """Number of its task in the mixture; None for a method that takes none."""
    reference: str | None = None
    """The reference answer as the tokenizer gives its tokens back, where that is another text than it is in the data: a
    generated answer that equals either is scored as if it equaled both."""


def answer_all(
    model: CausalLM,
    tokenizer: Tokenizer,
    questions: Sequence[Question],
    batch_size: int,
    max_new_tokens: int,
    device: torch.device,
    description: str,
) -> list[tuple[str, float]]:
    """Answer and score every question; all ranks call it with the same questions and get the same result.

    Batches are formed from all questions, sorted by length, and dealt to the ranks in turn.

    Args:
        model: the PEFT model (unwrapped), in evaluation mode.
        tokenizer: the model's.
        questions: each with a `score`.
        batch_size: prompts a rank answers at a time.
        max_new_tokens: longest answer.
        device: where the model computes.
        description: text of the progress bar.

    Returns:
        Generated text and score of each question, in their order.

    Raises:
        Exception: whatever a scorer raises, on the rank where it fails.
        PeerError: a scorer fails on another rank.
    """
    batches = length_batches(model, [question.input_ids for question in questions], batch_size)

    def answer_batch(batch: Sequence[int]) -> list[str]:
        asked = [questions[i] for i in batch]
        return answer(
            model,
            tokenizer,
            [question.input_ids for question in asked],
            [question.intuition for question in asked],
            max_new_tokens,
            device,
            [question.task_number for question in asked],
        )

    answered = deal(batches, answer_batch, description)
    answers = {i: text for number, texts in answered.items() for i, text in zip(batches[number], texts, strict=True)}
    return _score_all(questions, answers)


def generation_ends(model: CausalLM, tokenizer: Tokenizer) -> list[int]:
    """The ids at which an answer is over: the ends of the model's generation configuration, and those that are learned.

    Args:
        model: bare or adapted.
        tokenizer: the model's; its end of sequence and what its chat template ends an answer with are learned.
    """
    own = model.generation_config.eos_token_id
    return sorted({*turn_ends(tokenizer), *(own if isinstance(own, list) else [] if own is None else [own])})


@torch.no_grad()
def answer(
    model: CausalLM,
    tokenizer: Tokenizer,
    prompts: Sequence[Sequence[int]],
    intuition: Sequence[Tensor | None],
    max_new_tokens: int,
    device: torch.device,
    task_numbers: Sequence[int | None] | None = None,
) -> list[str]:
    """Greedy answers to encoded prompts, as one batch, each as far as the first of `generation_ends`.

    The model's generation configuration gives ends, but no penalty of repetitions, beams or least length.

    Args:
        model: an adapted model; with its adapters disabled it answers as the base model.
        tokenizer: the model's.
        prompts: token ids.
        intuition: raw cosines of each, (num_clusters,); None for a method that takes none.
        max_new_tokens: longest answer.
        device: where the model computes.
        task_numbers: of each prompt's task; None for a method that takes none.
    """
    from transformers import GenerationConfig

    items: list[dict[str, Any]] = [{"input_ids": ids} for ids in prompts]
    for item, cosines in zip(items, intuition, strict=True):
        if cosines is not None:
            item["intuition"] = cosines
    for item, number in zip(items, task_numbers or [None] * len(items), strict=True):
        if number is not None:
            item["task_ids"] = number
    inputs = {name: tensor.to(device) for name, tensor in Collator(tokenizer.pad_token_id)(items).items()}
    ends = generation_ends(model, tokenizer)
    settings = GenerationConfig(
        max_new_tokens=max_new_tokens,
        do_sample=False,
        use_cache=True,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=ends,
        # What is left open here, transformers takes from the model's own configuration.
        num_beams=1,
        min_length=0,
        repetition_penalty=1.0,
        no_repeat_ngram_size=0,
    )
    out = model.generate(**inputs, generation_config=settings)
    return answer_texts(tokenizer, out[:, inputs["input_ids"].shape[1] :].tolist(), ends)


def _references(question: Question) -> list[Example]:
    """The example, and the same with its answer as the tokenizer writes it."""
    own = question.example
    return [own] if question.reference is None else [own, replace(own, answer=question.reference)]


def without_ends(ids: Sequence[int], ends: Sequence[int]) -> list[int]:
    """Generated ids as far as the first end."""
    return list(takewhile(lambda token: token not in ends, ids))


def answer_texts(tokenizer: Tokenizer, rows: Sequence[Sequence[int]], ends: Sequence[int]) -> list[str]:
    """The texts of answers, each as far as the first of `ends`."""
    cut = [without_ends(row, ends) for row in rows]
    return [text.strip() for text in tokenizer.batch_decode(cut, skip_special_tokens=True)]


def _score_all(questions: Sequence[Question], answers: dict[int, str]) -> list[tuple[str, float]]:
    """Score this rank's answers, then collect all ranks'; in the questions' order."""
    scored: dict[int, tuple[str, float]] = {}
    with agreed():
        for index, text in answers.items():
            score = questions[index].score
            assert score is not None
            scored[index] = (text, max(float(score(example, text)) for example in _references(questions[index])))
    parts = gather_objects(scored)
    collected = {index: value for part in parts for index, value in part.items()}
    assert sum(len(part) for part in parts) == len(collected) == len(questions), "an example was lost or repeated"
    return [collected[index] for index in range(len(questions))]
