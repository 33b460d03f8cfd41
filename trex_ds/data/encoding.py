"""Examples as token ids: the prompt as the model sees it when it generates, and the answer to learn."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from trex_ds.data.config import DataConfig, Learn
from trex_ds.data.templates import ChatTemplate, Message, shared_start, template_of
from trex_ds.data.tokenizing import Reading, control_tokens, read_all, read_on, read_texts
from trex_ds.tasks.base import Example, Split

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

IGNORED_LABEL = -100
"""Label of a token that is not part of the loss."""

_BATCH = 1000


@dataclass(frozen=True)
class Encoded:
    """One training row."""

    ids: list[int]
    """Prompt, answer and what ends it."""
    answer_start: int
    """Position in `ids` of the answer, which is learned with what ends it."""
    earlier: tuple[int, ...] = ()
    """Positions in `ids` where earlier answers that are learned begin and end, in turn."""

    @property
    def labels(self) -> list[int]:
        """The ids that are learned, each in its place, and -100 elsewhere."""
        labels = [IGNORED_LABEL] * self.answer_start + self.ids[self.answer_start :]
        for start, end in zip(self.earlier[::2], self.earlier[1::2], strict=True):
            labels[start:end] = self.ids[start:end]
        return labels

    @property
    def answer_length(self) -> int:
        """Tokens of the answer and of what ends it."""
        return len(self.ids) - self.answer_start


@dataclass(frozen=True)
class _Texts:
    """An example as texts that a tokenizer is given."""

    prompt: str
    whole: str
    """The prompt with its answer, and where a template writes it, what ends the answer."""
    reading: Reading
    ended: bool
    """Whether `whole` ends with the token that ends an answer; else the tokenizer's own follows."""
    earlier: tuple[tuple[int, int], ...] = ()
    """Start and end, in `prompt`, of earlier answers that are learned."""


def encode_prompt(
    tokenizer: PreTrainedTokenizerBase, example: Example, system_prompt: str | None, *, escape: bool = False
) -> list[int]:
    r"""The ids that the model continues with its answer, in training and in generation alike.

    With a chat template: the history and the prompt as the user's message, as far as the template begins to
    write the answer. Without one: the prompt and a "\n", with the special tokens that the tokenizer puts
    first. Of a plain example: the prompt without the white space at its end, with the same special tokens.

    Args:
        tokenizer: of the model.
        example: whose answer is not looked at.
        system_prompt: of conversations that have none of their own.
        escape: take the names of special tokens in texts for plain text.

    Raises:
        ValueError: a system prompt or a history that cannot be given to this tokenizer.
    """
    template = template_of(tokenizer)
    if example.plain or template is None:
        texts = _without_template(tokenizer, example, system_prompt, escape)
        return read_texts(tokenizer, [texts.prompt], texts.reading)[0]
    messages, tools, reading = _conversation(tokenizer, example, system_prompt, escape)
    with _naming_the_task(example, system_prompt):
        return read_texts(tokenizer, [template.prompt(messages[:-1], tools)], reading)[0]


def encode_examples(
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Example],
    system_prompt: str | None,
    *,
    learn: Learn = "last_answer",
    escape: bool = False,
) -> list[Encoded]:
    """Each prompt as `encode_prompt` gives it, then the answer with what ends it, in few calls of the tokenizer.

    With a chat template the answer is what the template writes there as far as the token that ends the assistant's
    turn; without one, or if the template writes no such token, the tokenizer's end of sequence follows it.

    Args:
        tokenizer: of the model.
        examples: of any kind.
        system_prompt: of conversations that have none of their own.
        learn: which answers of a conversation have labels, where their weights do not say it.
        escape: take the names of special tokens in texts for plain text.

    Raises:
        ValueError: the tokenizer has no end-of-sequence token, or as `encode_prompt`.
    """
    if tokenizer.eos_token_id is None:
        raise ValueError(
            f"the tokenizer {tokenizer.name_or_path!r} has no eos_token, so an answer would never end; set one"
        )
    template = template_of(tokenizer)
    texts = [
        _without_template(tokenizer, example, system_prompt, escape)
        if example.plain or template is None
        else _with_template(tokenizer, template, example, system_prompt, learn, escape)
        for example in examples
    ]
    # One after the other: what precedes each earlier answer and its end, the prompt, and the whole.
    asked = [(text, t.reading) for t in texts for text in (*_heads(t), t.prompt, t.whole)]
    found = iter(read_all(tokenizer, asked))
    rows: list[Encoded] = []
    for example, text in zip(examples, texts, strict=True):
        heads = [next(found) for _ in _heads(text)]
        prompt, whole = next(found), next(found)
        if example.plain or whole[: len(prompt)] == prompt:
            # Of a plain example as lm-evaluation-harness has it, so that what is learned is what it scores: the
            # answer is what the tokens of the whole text have beyond as many as the prompt has alone.
            learned = whole[len(prompt) :]
        else:
            learned = read_on(tokenizer, text.whole[len(text.prompt) :], text.reading)
        ids = prompt + learned + ([] if text.ended else [tokenizer.eos_token_id])
        spans = [
            (shared_start(before, prompt), shared_start(end, prompt))
            for before, end in zip(heads[::2], heads[1::2], strict=True)
        ]
        earlier = tuple(place for start, end in spans if start < end for place in (start, end))
        rows.append(Encoded(ids, len(prompt), earlier))
    return rows


def encoded_batches(
    stream: Iterable[tuple[Split, Example]], tokenizer: PreTrainedTokenizerBase, data: DataConfig
) -> Iterator[list[tuple[Split, Example, Encoded]]]:
    """The examples of a stream with their rows, a thousand at a time.

    Raises:
        ValueError: as `encode_examples`.
    """
    examples = iter(stream)
    while batch := list(islice(examples, _BATCH)):
        rows = encode_examples(
            tokenizer,
            [example for _, example in batch],
            data.system_prompt,
            learn=data.learn,
            escape=data.escape_control_tokens,
        )
        yield [(split, example, row) for (split, example), row in zip(batch, rows, strict=True)]


def _heads(texts: _Texts) -> list[str]:
    return [texts.prompt[:place] for span in texts.earlier for place in span]


def turn_ends(tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """The ids of the tokens that end an answer that was learned: the tokenizer's own, and its chat template's.

    Raises:
        ValueError: as `ChatTemplate`.
    """
    template = template_of(tokenizer)
    ids = read_texts(tokenizer, [template.end], "written")[0][-1:] if template is not None and template.end else []
    return tuple(dict.fromkeys(i for i in (tokenizer.eos_token_id, *ids) if i is not None))


def end_length(tokenizer: PreTrainedTokenizerBase) -> int:
    """How many tokens are learned after the text of an answer that is not plain.

    Raises:
        ValueError: as `ChatTemplate`.
    """
    template = template_of(tokenizer)
    return len(read_on(tokenizer, template.end, "written")) if template is not None and template.end else 1


def template_warnings(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """What is unusual about the tokenizer's chat template, a line each.

    Raises:
        ValueError: as `ChatTemplate`.
    """
    template = template_of(tokenizer)
    return [] if template is None else template.warnings


def _with_template(
    tokenizer: PreTrainedTokenizerBase,
    template: ChatTemplate,
    example: Example,
    system_prompt: str | None,
    learn: Learn,
    escape: bool,
) -> _Texts:
    messages, tools, reading = _conversation(tokenizer, example, system_prompt, escape)
    answers = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
    learned = [i for i in answers[:-1] if messages[i].get("weight", int(learn == "all_answers"))]
    said = [{key: value for key, value in message.items() if key != "weight"} for message in messages]
    with _naming_the_task(example, system_prompt):
        written = template.write(said, [*learned, answers[-1]], tools)
    *earlier, (start, _) = written.answers
    return _Texts(written.text[:start], written.text, reading, written.ended, tuple(earlier))


def _without_template(
    tokenizer: PreTrainedTokenizerBase, example: Example, system_prompt: str | None, escape: bool
) -> _Texts:
    if example.plain:
        return _Texts(example.prompt.rstrip(), example.prompt + example.answer, "alone", ended=False)
    if example.history:
        raise ValueError(
            f"an example of task {example.task!r} has messages before its prompt ({example.history[0]}), "
            f"and the tokenizer {tokenizer.name_or_path!r} has no chat template to put them in; take a model "
            "that has one, or write them into the prompt"
        )
    if example.conversation is not None:
        raise ValueError(
            f"an example of task {example.task!r} has tools or their calls, and the tokenizer "
            f"{tokenizer.name_or_path!r} has no chat template to put them in; take a model that has one"
        )
    if system_prompt is not None:
        raise ValueError(
            f"data.system_prompt {system_prompt!r}: the tokenizer {tokenizer.name_or_path!r} has no chat "
            "template to put it in; set it to null, and write it into the prompts"
        )
    reading: Reading = "alone, escaped" if escape else "alone"
    return _Texts(f"{example.prompt}\n", f"{example.prompt}\n{example.answer}", reading, ended=False)


def _conversation(
    tokenizer: PreTrainedTokenizerBase, example: Example, system_prompt: str | None, escape: bool
) -> tuple[list[Message], list[Any] | None, Reading]:
    """The example's messages with its answer, its tools, and how the text of them is to be read."""
    said: list[Message] = [
        {"role": role, "content": text}
        for role, text in (*example.history, ("user", example.prompt), ("assistant", example.answer))
    ]
    messages, tools = said, None
    if example.conversation is not None:
        messages, tools = list(example.conversation["messages"]), example.conversation["tools"]
    if system_prompt is not None and messages[0]["role"] != "system":
        messages.insert(0, {"role": "system", "content": system_prompt})
    names = control_tokens(tokenizer)
    if not escape or not names.search(json.dumps([messages, tools], ensure_ascii=False)):
        return messages, tools, "written"
    from transformers.utils.chat_template_utils import mark_control_tokens

    return mark_control_tokens(messages, names), mark_control_tokens(tools, names), "marked"


@contextmanager
def _naming_the_task(example: Example, system_prompt: str | None) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        own = system_prompt is None or (example.history and example.history[0][0] == "system")
        way_out = "change or remove such examples" if own else "set data.system_prompt to null"
        raise ValueError(f"an example of task {example.task!r}: {error}; {way_out}") from error
