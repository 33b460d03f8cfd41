"""Answers by greedy generation, over all ranks, each evaluation example exactly once."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from pydantic import PositiveInt
from torch import Tensor
from tqdm import tqdm

from trex_ds.config import section
from trex_ds.data import Collator
from trex_ds.distributed import agree, rank, world_size
from trex_ds.evaluation.accuracy import Evaluation, Item
from trex_ds.tasks import Example, Task


@section
class EvaluationConfig:
    """When and how accuracy is measured."""

    batch_size: PositiveInt = 16
    """Prompts a rank answers at a time."""
    max_new_tokens: PositiveInt = 32
    """Longest answer; a longer one is cut and scored as it is."""
    every: PositiveInt | None = None
    """Steps between evaluations while training; null: only before and after."""
    gather_weights: bool = False
    """Under ZeRO-3, keep the whole model on every rank while answering: many times faster where it fits."""


@dataclass(frozen=True)
class Question:
    """An evaluation example, ready for the model: token ids of its prompt, and its scores (num_clusters,)."""

    example: Example
    task: Task
    input_ids: list[int]
    intuition: Tensor


def evaluate(
    model: Any,
    tokenizer: Any,
    questions: Sequence[Question],
    config: EvaluationConfig,
    device: torch.device,
    description: str,
    use_adapter: bool = True,
) -> Evaluation:
    """Answer and score every question; all ranks call it with the same questions and get the same result.

    Batches are formed from all questions, sorted by length, and dealt to the ranks in turn. Every
    rank runs the same number of batches, because under ZeRO-3 a forward pass is a collective; a rank
    that has none left answers its last one again and drops the answers.

    Args:
        model: the PEFT model (unwrapped); its mode is restored afterwards.
        tokenizer: the model's.
        questions: all evaluation questions of all tasks.
        config: batch size and answer length.
        device: where the model computes.
        description: text of the progress bar.
        use_adapter: False measures the base model.

    Raises:
        RuntimeError: on every rank, if a scorer fails on one.
    """
    order = sorted(range(len(questions)), key=lambda i: (-len(questions[i].input_ids), i))
    batches = [order[i : i + config.batch_size] for i in range(0, len(order), config.batch_size)]
    rounds = -(-len(batches) // world_size())
    answers: dict[int, str] = {}
    was_training = model.training
    model.eval()
    for number in tqdm(range(rounds), desc=description, disable=rank() != 0, mininterval=5.0):
        mine = number * world_size() + rank()
        batch = batches[min(mine, len(batches) - 1)]
        asked = [questions[i] for i in batch]
        with nullcontext() if use_adapter else model.disable_adapter():
            texts = answer(
                model,
                tokenizer,
                [q.input_ids for q in asked],
                [q.intuition for q in asked],
                config.max_new_tokens,
                device,
            )
        if mine < len(batches):
            answers.update(zip(batch, texts, strict=True))
    model.train(was_training)
    return Evaluation(_score_all(questions, answers))


@torch.no_grad()
def answer(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    intuition: Sequence[Tensor],
    max_new_tokens: int,
    device: torch.device,
) -> list[str]:
    """Greedy answers to encoded prompts, as one batch.

    Args:
        model: an adapted model; with its adapters disabled it answers as the base model.
        tokenizer: the model's.
        prompts: token ids.
        intuition: raw scores of each, (num_clusters,).
        max_new_tokens: longest answer.
        device: where the model computes.
    """
    from transformers import GenerationConfig

    items = [{"input_ids": ids, "intuition": scores} for ids, scores in zip(prompts, intuition, strict=True)]
    inputs = {name: tensor.to(device) for name, tensor in Collator(tokenizer.pad_token_id)(items).items()}
    settings = GenerationConfig(
        max_new_tokens=max_new_tokens,
        do_sample=False,
        use_cache=True,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    out = model.generate(**inputs, generation_config=settings)
    new = out[:, inputs["input_ids"].shape[1] :]
    return [text.strip() for text in tokenizer.batch_decode(new, skip_special_tokens=True)]


def _score_all(questions: Sequence[Question], answers: dict[int, str]) -> list[Item]:
    """Score this rank's answers, then collect all ranks'; in the questions' order."""
    scored: dict[int, tuple[str, float]] = {}
    error: Exception | None = None
    try:
        for index, text in answers.items():
            question = questions[index]
            scored[index] = (text, float(question.task.score(question.example, text)))
    except Exception as exception:
        error = exception
    agree(error)
    parts: list[Any] = [scored]
    if world_size() > 1:
        parts = [None] * world_size()
        dist.all_gather_object(parts, scored)
    collected = {index: value for part in parts for index, value in part.items()}
    assert sum(len(part) for part in parts) == len(collected) == len(questions), "an example was lost or repeated"
    return [
        Item(q.example.task, q.example.prompt, q.example.answer, *collected[index]) for index, q in enumerate(questions)
    ]
