"""How a chat template writes a conversation: where its answers begin, and what ends them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from jinja2 import TemplateError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Message = Mapping[str, Any]

# Stand for texts in conversations that are rendered to see where a template puts them. Letters and digits alone:
# templates strip white space, escape quotes, and look for markup.
_MARK = "TREXMARK{}END"
_PROBE = [{"role": ("user", "assistant")[i % 2], "content": _MARK.format(i)} for i in range(4)]
_PLAIN_KEYS = {"role", "content"}
_TODAY = "strftime_now("  # the function that transformers gives templates


@dataclass(frozen=True)
class Written:
    """A conversation as text."""

    text: str
    """The conversation as the template writes it, as far as the end of the last answer."""
    answers: tuple[tuple[int, int], ...]
    """Start and end in `text` of the answers that were asked for, each with what ends it."""
    ended: bool
    """Whether `text` ends with a token that ends an answer; else the tokenizer's own has to follow."""


class ChatTemplate:
    """The chat template of a tokenizer, and what can be seen of it in conversations of marked texts.

    A prompt ends where the template begins to write the answer. That is where its generation prompt ends, but for two
    kinds of template: those that write none, and those that put something between it and the answer, such as an empty
    block of thoughts. There the prompt goes on to the answer. White space before the answer belongs to the answer.

    Raises:
        ValueError: the template cannot write a question and its answer.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase):
        self._tokenizer = tokenizer
        self._checked: set[tuple[str, ...]] = set()
        added = {token.content for token in tokenizer.added_tokens_decoder.values()} | set(tokenizer.all_special_tokens)
        longest_first = sorted((token for token in added if token.strip()), key=len, reverse=True)
        self._tokens = re.compile("|".join(map(re.escape, longest_first)) or "(?!)")
        self.warnings: list[str] = []
        """What other programs that use the template may do otherwise."""
        self.end = ""
        """What follows an answer, as far as the token that ends it; "" if the template writes no such token."""
        self._earlier_end = ""
        self._look()

    def prompt(self, messages: Sequence[Message], tools: Sequence[Any] | None = None) -> str:
        """What the model continues with its answer to the last of `messages`.

        Raises:
            ValueError: the template refuses the conversation, or leaves out a message of it.
        """
        answered = [*messages, _PROBE[1]]
        self._check_all_are_written(answered, tools)
        return self._around(answered, len(messages), tools)[0]

    def write(self, messages: Sequence[Message], answers: Sequence[int], tools: Sequence[Any] | None = None) -> Written:
        """The conversation, with where the messages numbered `answers` lie in it; the last of them ends it.

        Raises:
            ValueError: as `prompt`, or the template writes an answer so that it cannot be told where it begins.
        """
        self._check_all_are_written(messages, tools)
        text = self._render(messages, tools)
        ended = bool(self.end)
        spans = []
        for number in answers:
            before, after = self._around(messages, number, tools)
            is_last = number == len(messages) - 1
            if is_last and not messages[number].keys() - _PLAIN_KEYS and not messages[number]["content"].strip():
                text = before + self._space + after  # a template may write an answer without text in any way
            start = self._start(text, before, messages[:number], tools)
            end = len(text) - len(after)
            if start is None or ((not text.endswith(after) or end < start) and not is_last):
                raise ValueError(
                    f"the chat template of {self._tokenizer.name_or_path!r} writes message {number + 1} "
                    f"({str(messages[number].get('content'))[:60]!r}) so that it cannot be told from what is around "
                    "it; change or remove such examples"
                )
            if not text.endswith(after) or end < start:  # a call of a tool may end otherwise
                end = len(text.rstrip())
                found = self._tokens.findall(text)
                ended = bool(found) and text[:end].endswith(found[-1])
            elif is_last:
                text, end = text[:end] + self.end, end + len(self.end)
            elif after.startswith(self._earlier_end):
                end += len(self._earlier_end)
            if _letters(messages[number]["content"]) not in _letters(text[start:end]):
                raise ValueError(
                    f"the chat template of {self._tokenizer.name_or_path!r} leaves out a part of message {number + 1} "
                    f"({messages[number]['content'][:60]!r}), which was to be learned, such as thoughts; remove that "
                    "part, or do not have it learned"
                )
            spans.append((start, end))
        return Written(text[: spans[-1][1]], tuple(spans), ended)

    def _look(self) -> None:
        name, mark = self._tokenizer.name_or_path, _PROBE[0]["content"]
        asked, unasked = self._render(_PROBE[:1], None, True), self._render(_PROBE[:1], None)
        answered = self._render(_PROBE[:2], None)
        if answered.count(_PROBE[1]["content"]) != 1:
            raise ValueError(f"the chat template of {name!r} does not write the assistant's message once; set another")
        if _TODAY in str(self._tokenizer.chat_template):
            self.warnings.append(
                f"the chat template of {name!r} writes the date: prompts that are prepared on one day are not those of "
                "another; data.system_prompt may take its place"
            )
        before, _, after = answered.partition(_PROBE[1]["content"])
        self._look_for_ends(after)
        beyond = before.removeprefix(asked) if before.startswith(asked) else None
        if beyond is not None and not beyond.strip():
            self._space = beyond
            return
        self._space = before[len(before.rstrip(" ")) :]
        if asked == unasked:
            self.warnings.append(
                f"the chat template of {name!r} writes no generation prompt: prompts end in {before[len(asked) :]!r} "
                "here, as before an answer; other programs may leave that out"
            )
        else:
            self.warnings.append(
                f"the chat template of {name!r} writes something between its generation prompt and an answer: prompts "
                f"end in {before.rpartition(mark)[2]!r} here, as before an answer, where other programs end them in "
                f"{asked.rpartition(mark)[2]!r}"
            )

    def _look_for_ends(self, after: str) -> None:
        """Find what ends an answer.

        Args:
            after: what follows the last one.
        """
        tokenizer, mark = self._tokenizer, _PROBE[1]["content"]
        # What follows an answer before a question, and what does before the generation prompt: what both begin with
        # belongs to the answer.
        before_question = self._render(_PROBE, None).partition(mark)[2]
        before_answer = self._render(_PROBE[:2], None, True).partition(mark)[2]
        shared = before_question[: shared_start(before_question, before_answer)]
        self.end, self._earlier_end = self._first_end(after), self._first_end(shared)
        if self.end and before_question.startswith(self.end):
            self._earlier_end = self.end
        elif not self._earlier_end and before_question.lstrip().startswith(tokenizer.eos_token or mark):
            self._earlier_end = self._first_end(before_question)
        self.end = self.end or self._earlier_end
        if not self.end:
            self.warnings.append(
                f"the chat template of {tokenizer.name_or_path!r} writes {after!r} after an answer, in which is no "
                f"token that could end it; {tokenizer.eos_token} is learned in its place"
            )

    def _first_end(self, text: str) -> str:
        found = self._tokens.search(text)
        return text[: found.end()] if found else ""

    def _around(self, messages: Sequence[Message], number: int, tools: Sequence[Any] | None) -> tuple[str, str]:
        """What the template writes before and after message `number`, whatever that says."""
        own = [*messages]
        mark = _PROBE[1]["content"]
        while any(mark in str(message) for message in own if message is not _PROBE[1]):
            mark += "X"
        own[number] = {"role": "assistant", "content": mark}
        before, _, after = self._render(own, tools).partition(mark)
        return before.removesuffix(self._space), after

    def _start(self, text: str, before: str, asked: Sequence[Message], tools: Sequence[Any] | None) -> int | None:
        if text.startswith(before):
            return len(before)
        head = self._render(asked, tools, True)  # of an answer with thoughts of its own, say
        return len(head) if text.startswith(head) else None

    def _check_all_are_written(self, messages: Sequence[Message], tools: Sequence[Any] | None) -> None:
        """Refuse a conversation of which the template leaves out a message."""
        plain = tools is None and not any(message.keys() - _PLAIN_KEYS for message in messages)
        roles = tuple(message["role"] for message in messages)
        if plain and roles in self._checked:
            return
        marks = [_MARK.format(i) for i in range(len(messages))]
        marked = [
            {**message, "content": mark} if plain or message.get("content") else message
            for message, mark in zip(messages, marks, strict=True)
        ]
        text = self._render(marked, tools)
        for number, message in enumerate(marked):
            if message.get("content") == marks[number] and marks[number] not in text:
                raise ValueError(
                    f"the chat template of {self._tokenizer.name_or_path!r} leaves out message {number + 1} of a "
                    f"conversation with the roles {', '.join(roles)}; write into a user's message what it says"
                )
        if plain:
            self._checked.add(roles)
            return
        whole = self._render(messages, tools)
        without_calls = [{key: value for key, value in m.items() if key != "tool_calls"} for m in messages]
        unwritten = [
            name
            for name, given, others in (
                ("the calls of tools", any("tool_calls" in m for m in messages), (without_calls, tools)),
                ("the tools", tools is not None, (messages, None)),
            )
            if given and self._render(*others) == whole
        ]
        if unwritten:
            raise ValueError(
                f"the chat template of {self._tokenizer.name_or_path!r} leaves out {' and '.join(unwritten)} of a "
                "conversation; take a model that was made for them, or write them into the messages"
            )

    def _render(self, messages: Sequence[Message], tools: Sequence[Any] | None, generation: bool = False) -> str:
        try:
            text = self._tokenizer.apply_chat_template(
                list(messages), tools=tools, add_generation_prompt=generation, tokenize=False
            )
        except Exception as error:  # a template is a program of its own, which raises what it likes
            kind = "refuses" if isinstance(error, TemplateError) else f"fails ({type(error).__name__}) on"
            raise ValueError(
                f"the chat template of {self._tokenizer.name_or_path!r} {kind} a conversation with the roles "
                f"{[message['role'] for message in messages]}: {error}"
            ) from error
        assert isinstance(text, str)
        return text


def _letters(text: str) -> str:
    """Remove white space from a text, because templates add and remove it."""
    return "".join(text.split())


def shared_start(one: Sequence[Any], other: Sequence[Any]) -> int:
    """How many characters two texts, or ids two lists, have in common from their beginning."""
    pairs = zip(one, other, strict=False)
    return next((i for i, (mine, theirs) in enumerate(pairs) if mine != theirs), min(len(one), len(other)))


@lru_cache(maxsize=4)
def _template_of(tokenizer: PreTrainedTokenizerBase, template: str) -> ChatTemplate:
    return ChatTemplate(tokenizer)


def template_of(tokenizer: PreTrainedTokenizerBase) -> ChatTemplate | None:
    """The tokenizer's chat template, looked at once; None if it has none.

    Raises:
        ValueError: as `ChatTemplate`.
    """
    return None if tokenizer.chat_template is None else _template_of(tokenizer, str(tokenizer.chat_template))
