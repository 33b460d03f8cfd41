"""Examples as token ids: the prompt as the model sees it when it generates, and the answer to learn."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from jinja2 import TemplateError
from pydantic import PositiveInt

from trex_ds.config import section
from trex_ds.tasks.base import Example

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

IGNORED_LABEL = -100
"""Label of a token that has no part in the loss."""


@section
class DataConfig:
    """How examples become rows of tokens."""

    max_length: PositiveInt = 1024
    """Tokens of prompt and answer together; longer training examples are left out, never cut."""
    system_prompt: str | None = None
    """System message of the chat template; null: the template's own, if it has one. "" is a message
    too: one without text, in place of the template's own."""


@dataclass(frozen=True)
class Encoded:
    """One training row; both lists have the same length."""

    input_ids: list[int]
    """Prompt, answer and end-of-sequence token."""
    labels: list[int]
    """-100 on the prompt, `input_ids` on the answer and the end of sequence."""


def encode_prompt(tokenizer: PreTrainedTokenizerBase, prompt: str, system_prompt: str | None) -> list[int]:
    r"""The ids that the model continues with its answer, in training and in generation alike.

    With a chat template: the prompt as the user's message, then the head of the assistant's. Without
    one: the prompt and a "\n", with the special tokens that the tokenizer puts first.

    Raises:
        ValueError: a system prompt that cannot be given to this tokenizer.
    """
    if tokenizer.chat_template is None:
        if system_prompt is not None:
            raise ValueError(
                f"data.system_prompt {system_prompt!r}: the tokenizer {tokenizer.name_or_path!r} has no chat "
                "template to put it in; set it to null, and write it into the prompts"
            )
        ids = tokenizer(prompt + "\n")["input_ids"]
        # Some tokenizers end every text; the answer has to come first.
        return ids[:-1] if ids and ids[-1] in (tokenizer.eos_token_id, tokenizer.sep_token_id) else ids
    messages = [{"role": "user", "content": prompt}]
    if system_prompt is not None:
        messages.insert(0, {"role": "system", "content": system_prompt})
    try:
        text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    except TemplateError as error:
        raise ValueError(
            f"the chat template of {tokenizer.name_or_path!r} refuses a conversation with the roles "
            f"{[message['role'] for message in messages]}: {error}"
            + ("" if system_prompt is None else "; set data.system_prompt to null")
        ) from error
    # The template has written the special tokens already.
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def encode_example(tokenizer: PreTrainedTokenizerBase, example: Example, system_prompt: str | None) -> Encoded:
    """The prompt of `encode_prompt`, then the answer and the end of sequence, which alone are learnt.

    Raises:
        ValueError: the tokenizer has no end-of-sequence token, or as `encode_prompt`.
    """
    if tokenizer.eos_token_id is None:
        raise ValueError(
            f"the tokenizer {tokenizer.name_or_path!r} has no eos_token, so an answer would never end; set one"
        )
    prompt = encode_prompt(tokenizer, example.prompt, system_prompt)
    answer = tokenizer(example.answer, add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]
    return Encoded(prompt + answer, [IGNORED_LABEL] * len(prompt) + answer)


def encode_training(
    tokenizer: PreTrainedTokenizerBase, tasks: Sequence[Task], config: DataConfig
) -> tuple[list[Task], list[Encoded]]:
    """The tasks without the training examples that are too long, and the rows of those that remain.

    The rows are in order of the tasks returned, and of the training examples in each. The evaluation
    examples stay as they are.

    Raises:
        ValueError: a task has no training example of at most `config.max_length` tokens, or as
            `encode_example`.
    """
    kept_tasks: list[Task] = []
    rows: list[Encoded] = []
    for task in tasks:
        encoded = [encode_example(tokenizer, example, config.system_prompt) for example in task.train]
        fits = [len(row.input_ids) <= config.max_length for row in encoded]
        if not any(fits):
            shortest = min(len(row.input_ids) for row in encoded)
            raise ValueError(
                f"task {task.name!r}: all {len(encoded)} training examples are longer than data.max_length "
                f"{config.max_length}, the shortest has {shortest} tokens; raise max_length or remove the task"
            )
        if not all(fits):
            logger.warning(
                "task %r: left out %d of %d training examples, longer than data.max_length %d",
                *(task.name, fits.count(False), len(fits), config.max_length),
            )
        kept = [example for example, fit in zip(task.train, fits, strict=True) if fit]
        kept_tasks.append(replace(task, train=kept))
        rows += [row for row, fit in zip(encoded, fits, strict=True) if fit]
    return kept_tasks, rows
