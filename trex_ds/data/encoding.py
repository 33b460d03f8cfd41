"""Examples as token ids: the prompt as the model sees it when it generates, and the answer to learn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jinja2 import TemplateError

from trex_ds.tasks.base import Example

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

IGNORED_LABEL = -100
"""Label of a token that has no part in the loss."""


@dataclass(frozen=True)
class Encoded:
    """One training row; both lists have the same length."""

    input_ids: list[int]
    """Prompt, answer and end-of-sequence token."""
    labels: list[int]
    """-100 on the prompt, `input_ids` on the answer and the end of sequence."""


Text = tuple[str, bool]
"""What a tokenizer is given, and whether it adds the special tokens that it puts around a text."""


def encode_prompt(tokenizer: PreTrainedTokenizerBase, example: Example, system_prompt: str | None) -> list[int]:
    r"""The ids that the model continues with its answer, in training and in generation alike.

    With a chat template: the history, the prompt as the user's message, then the head of the
    assistant's. Without one: the prompt and a "\n", with the special tokens that the tokenizer puts
    first. Of a plain example: the prompt without the white space at its end, with the same special tokens.

    Raises:
        ValueError: a system prompt or a history that cannot be given to this tokenizer.
    """
    return _ids(tokenizer, [_prompt_text(tokenizer, example, system_prompt)])[0]


def encode_example(tokenizer: PreTrainedTokenizerBase, example: Example, system_prompt: str | None) -> Encoded:
    """The prompt of `encode_prompt`, then the answer and the end of sequence, which alone are learnt.

    Raises:
        ValueError: as `encode_examples`.
    """
    return encode_examples(tokenizer, [example], system_prompt)[0]


def encode_examples(
    tokenizer: PreTrainedTokenizerBase, examples: Sequence[Example], system_prompt: str | None
) -> list[Encoded]:
    """What `encode_example` gives for each, in a few calls of the tokenizer.

    Raises:
        ValueError: the tokenizer has no end-of-sequence token, or as `encode_prompt`.
    """
    if tokenizer.eos_token_id is None:
        raise ValueError(
            f"the tokenizer {tokenizer.name_or_path!r} has no eos_token, so an answer would never end; set one"
        )
    prompts = _ids(tokenizer, [_prompt_text(tokenizer, example, system_prompt) for example in examples])
    answers = _ids(tokenizer, [(e.prompt + e.answer, True) if e.plain else (e.answer, False) for e in examples])
    rows = []
    for example, prompt, answer in zip(examples, prompts, answers, strict=True):
        # As lm-evaluation-harness has it, so that what is learnt is what it scores: the answer is what the
        # tokens of the whole text have beyond as many as the prompt has alone.
        learnt = (answer[len(prompt) :] if example.plain else answer) + [tokenizer.eos_token_id]
        rows.append(Encoded(prompt + learnt, [IGNORED_LABEL] * len(prompt) + learnt))
    return rows


def _prompt_text(tokenizer: PreTrainedTokenizerBase, example: Example, system_prompt: str | None) -> Text:
    if example.plain:
        return example.prompt.rstrip(), True
    if tokenizer.chat_template is None:
        if example.history:
            raise ValueError(
                f"an example of task {example.task!r} has messages before its prompt ({example.history[0]}), "
                f"and the tokenizer {tokenizer.name_or_path!r} has no chat template to put them in; take a model "
                "that has one, or write them into the prompt"
            )
        if system_prompt is not None:
            raise ValueError(
                f"data.system_prompt {system_prompt!r}: the tokenizer {tokenizer.name_or_path!r} has no chat "
                "template to put it in; set it to null, and write it into the prompts"
            )
        return example.prompt + "\n", True
    messages = [{"role": role, "content": text} for role, text in (*example.history, ("user", example.prompt))]
    if messages[0]["role"] == "system":
        system_prompt = None
    if system_prompt is not None:
        messages.insert(0, {"role": "system", "content": system_prompt})
    try:
        text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    except TemplateError as error:
        raise ValueError(
            f"the chat template of {tokenizer.name_or_path!r} refuses a conversation of task {example.task!r} with the "
            f"roles {[message['role'] for message in messages]}: {error}"
            + ("; change or remove such examples" if system_prompt is None else "; set data.system_prompt to null")
        ) from error
    return text, False  # the template has written the special tokens already


def _ids(tokenizer: PreTrainedTokenizerBase, texts: Sequence[Text]) -> list[list[int]]:
    """The ids of each text, without an end of sequence that the tokenizer adds: more is to come."""
    found: list[list[int]] = [[] for _ in texts]
    for special in (False, True):
        places = [i for i, (_, wanted) in enumerate(texts) if wanted is special]
        if not places:
            continue
        batch = tokenizer([texts[i][0] for i in places], add_special_tokens=special, return_attention_mask=False)
        for place, ids in zip(places, batch["input_ids"], strict=True):
            ends = special and ids and ids[-1] in (tokenizer.eos_token_id, tokenizer.sep_token_id)
            found[place] = ids[:-1] if ends else ids
    return found
