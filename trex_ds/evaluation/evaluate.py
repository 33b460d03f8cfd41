"""Accuracy of a model on evaluation examples of every kind."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING

import torch

from trex_ds.evaluation.accuracy import Evaluation, Item
from trex_ds.evaluation.config import EvaluationConfig
from trex_ds.evaluation.generation import Question, answer_all
from trex_ds.modeling.mode import evaluation_mode
from trex_ds.protocols import AdaptedLM, Tokenizer
from trex_ds.tasks.base import right_choice

if TYPE_CHECKING:
    from trex_ds.evaluation.harness_model import ContextIntuition
    from trex_ds.tasks.harness.loading import Loaded


def evaluate(
    model: AdaptedLM,
    tokenizer: Tokenizer,
    questions: Sequence[Question],
    config: EvaluationConfig,
    device: torch.device,
    description: str,
    *,
    use_adapter: bool = True,
    harness_tasks: Loaded | None = None,
    context_intuition: ContextIntuition | None = None,
) -> Evaluation:
    """Answer and score every question; all ranks call it with the same questions and get the same result.

    Args:
        model: the PEFT model (unwrapped); its mode is restored afterwards.
        tokenizer: the model's.
        questions: all questions of all tasks.
        config: batch size and answer length.
        device: where the model computes.
        description: text of the progress bars.
        use_adapter: False measures the base model.
        harness_tasks: lm-eval's tasks, where questions without a scorer come from.
        context_intuition: gives the intuition of their contexts.

    Raises:
        Exception: whatever a scorer raises, on the rank where it fails.
        PeerError: a scorer fails on another rank.
        ValueError: as `trex_ds.evaluation.harness.evaluate_examples`.
    """
    generated = [q for q in questions if q.score is not None]
    asked_by_harness = [q for q in questions if q.score is None]
    found: dict[int, tuple[str, float]] = {}
    with evaluation_mode(model), nullcontext() if use_adapter else model.disable_adapter():
        if generated:
            settings = (config.batch_size, config.max_new_tokens, device, description)
            results = answer_all(model, tokenizer, generated, *settings)
            found |= {id(q): result for q, result in zip(generated, results, strict=True)}
        if asked_by_harness:
            from trex_ds.evaluation.harness import evaluate_examples
            from trex_ds.evaluation.harness_model import TRexLM

            assert harness_tasks is not None
            lm = TRexLM(model, tokenizer, context_intuition, batch_size=config.batch_size, device=device)
            outcomes = evaluate_examples(lm, [q.example for q in asked_by_harness], harness_tasks)
            found |= {id(q): (o.generated, o.score) for q, o in zip(asked_by_harness, outcomes, strict=True)}
    return Evaluation(
        [
            Item(q.example.task, q.example.text, q.example.answer, *found[id(q)], right_choice(q.example))
            for q in questions
        ]
    )
