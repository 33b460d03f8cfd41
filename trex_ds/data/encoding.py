"""Examples as token ids: the prompt as the model sees it when it generates, and the answer to learn."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trex_ds.data.templates import ChatTemplate, template_of
from trex_ds.tasks.base import Example

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

IGNORED_LABEL = -100
"""Label of a token that has no part in the loss."""


@dataclass(frozen=True)
class Encoded:
    """One training row; both lists have the same length."""

    input_ids: list[int]
    """Prompt, answer and what ends it."""
    labels: list[int]
    """-100 on the prompt, `input_ids` on the answer and on what ends it."""


@dataclass(frozen=True)
class _Texts:
    """An example as texts that a tokenizer is given."""

    prompt: str
    whole: str
    """The prompt with its answer, and where a template writes it, what ends the answer."""
    special: bool
    """Whether the tokenizer adds the special tokens that it puts around a text."""
    ended: bool
    """Whether `whole` ends with the token that ends an answer; else the tokenizer's own follows."""


def encode_prompt(tokenizer: PreTrainedTokenizerBase, example: Example, system_prompt: str | None) -> list[int]:
    r"""The ids that the model continues with its answer, in training and in generation alike.

    With a chat template: the history and the prompt as the user's message, as far as the template begins to
    write the answer. Without one: the prompt and a "\n", with the special tokens that the tokenizer puts
    first. Of a plain example: the prompt without the white space at its end, with the same special tokens.

    Raises:
        ValueError: a system prompt or a history that cannot be given to this tokenizer.
    """
    template = template_of(tokenizer)
    if example.plain or template is None:
        texts = _without_template(tokenizer, example, system_prompt)
        return _ids(tokenizer, [texts.prompt], texts.special)[0]
    with _naming_the_task(example, system_prompt):
        return _ids(tokenizer, [template.prompt(_messages(example, system_prompt))], False)[0]


def encode_example(tokenizer: PreTrainedTokenizerBase, example: Example, system_prompt: str | None) -> Encoded:
    """The prompt of `encode_prompt`, then the answer with what ends it, which alone are learnt.

    With a chat template it is what the template writes there as far as the token that ends the assistant's turn;
    without one, or if the template writes no such token, the tokenizer's end of sequence.

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
    template = template_of(tokenizer)
    rows: list[Encoded] = []
    texts = [
        _without_template(tokenizer, example, system_prompt)
        if example.plain or template is None
        else _with_template(template, example, system_prompt)
        for example in examples
    ]
    prompts = _ids_of_all(tokenizer, [(text.prompt, text.special) for text in texts])
    wholes = _ids_of_all(tokenizer, [(text.whole, text.special) for text in texts])
    for example, text, prompt, whole in zip(examples, texts, prompts, wholes, strict=True):
        if example.plain or whole[: len(prompt)] == prompt:
            # Of a plain example as lm-evaluation-harness has it, so that what is learnt is what it scores: the
            # answer is what the tokens of the whole text have beyond as many as the prompt has alone.
            learnt = whole[len(prompt) :]
        else:
            learnt = _continuation_ids(tokenizer, text.whole[len(text.prompt) :])
        learnt += [] if text.ended else [tokenizer.eos_token_id]
        rows.append(Encoded(prompt + learnt, [IGNORED_LABEL] * len(prompt) + learnt))
    return rows


def turn_ends(tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """The ids of the tokens that end an answer that was learnt: the tokenizer's own, and its chat template's.

    Raises:
        ValueError: as `ChatTemplate`.
    """
    template = template_of(tokenizer)
    ids = _ids(tokenizer, [template.end], False)[0][-1:] if template is not None and template.end else []
    return tuple(dict.fromkeys(i for i in (tokenizer.eos_token_id, *ids) if i is not None))


def end_length(tokenizer: PreTrainedTokenizerBase) -> int:
    """How many tokens are learnt after the text of an answer that is not plain.

    Raises:
        ValueError: as `ChatTemplate`.
    """
    template = template_of(tokenizer)
    return len(_continuation_ids(tokenizer, template.end)) if template is not None and template.end else 1


def template_warnings(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """What is unusual about the tokenizer's chat template, a line each.

    Raises:
        ValueError: as `ChatTemplate`.
    """
    template = template_of(tokenizer)
    return [] if template is None else template.warnings


def _with_template(template: ChatTemplate, example: Example, system_prompt: str | None) -> _Texts:
    messages = [*_messages(example, system_prompt), {"role": "assistant", "content": example.answer}]
    with _naming_the_task(example, system_prompt):
        written = template.write(messages, [len(messages) - 1])
    return _Texts(written.text[: written.answers[-1][0]], written.text, special=False, ended=written.ended)


def _without_template(tokenizer: PreTrainedTokenizerBase, example: Example, system_prompt: str | None) -> _Texts:
    if example.plain:
        return _Texts(example.prompt.rstrip(), example.prompt + example.answer, special=True, ended=False)
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
    return _Texts(f"{example.prompt}\n", f"{example.prompt}\n{example.answer}", special=True, ended=False)


def _messages(example: Example, system_prompt: str | None) -> list[dict[str, str]]:
    messages = [{"role": role, "content": text} for role, text in (*example.history, ("user", example.prompt))]
    if system_prompt is not None and messages[0]["role"] != "system":
        messages.insert(0, {"role": "system", "content": system_prompt})
    return messages


@contextmanager
def _naming_the_task(example: Example, system_prompt: str | None) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        own = system_prompt is None or (example.history and example.history[0][0] == "system")
        way_out = "change or remove such examples" if own else "set data.system_prompt to null"
        raise ValueError(f"an example of task {example.task!r}: {error}; {way_out}") from error


def _ids_of_all(tokenizer: PreTrainedTokenizerBase, texts: Sequence[tuple[str, bool]]) -> list[list[int]]:
    """The ids of texts, each with whether the tokenizer adds its special tokens."""
    found: list[list[int]] = [[] for _ in texts]
    for special in (False, True):
        places = [i for i, (_, wanted) in enumerate(texts) if wanted is special]
        for place, ids in zip(places, _ids(tokenizer, [texts[i][0] for i in places], special), strict=True):
            found[place] = ids
    return found


def _ids(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], special: bool) -> list[list[int]]:
    """The ids of each text, without an end of sequence that the tokenizer adds: more is to come."""
    if not texts:
        return []
    *found, letter = tokenizer([*texts, "a"], add_special_tokens=special, return_attention_mask=False)["input_ids"]
    ends = special and letter[-1] in (tokenizer.eos_token_id, tokenizer.sep_token_id)
    return [ids[:-1] for ids in found] if ends else found


def _continuation_ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """The ids of a text that goes on after another: without the space that some tokenizers put first."""
    line, both = _ids(tokenizer, ["\n", f"\n{text}"], False)
    return both[len(line) :] if both[: len(line)] == line else _ids(tokenizer, [text], False)[0]
