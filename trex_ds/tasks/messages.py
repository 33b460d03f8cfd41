"""Turns of a conversation, from its messages: which there are, what they may say, and which are learned."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trex_ds.tasks.wording import in_quotes, is_text, shown, unknown

_KEYS = {
    "system": (),
    "user": (),
    "assistant": ("weight", "tool_calls"),
    "tool": ("tool_call_id", "name"),
}
_COMMON = ("role", "content")


@dataclass(frozen=True)
class Turns:
    """A conversation that ends with the answer to learn."""

    texts: tuple[tuple[str, str], ...]
    """Role and text of each turn; a call of a tool is its JSON."""
    messages: tuple[Mapping[str, Any], ...] | None
    """All turns with all their keys, where `texts` does not say everything; else None."""


def read_turns(messages: Any, tools: Any) -> Turns:
    """The conversation as far as its last answer that is learned; later turns change nothing of what is learned.

    Args:
        messages: as they stand in the data.
        tools: those that the conversation may call, or None.

    Raises:
        ValueError: the first problem, since others follow from it.
    """
    if not isinstance(messages, list) or not messages:
        raise ValueError(f"messages must be a list with at least a user's and an assistant's, got {shown(messages)}")
    turns = [_turn(number, message) for number, message in enumerate(messages, start=1)]
    if turns[-1].get("weight") == 0:
        learned = [i for i, turn in enumerate(turns) if turn["role"] == "assistant" and turn.get("weight") != 0]
        if not learned:
            raise ValueError("every answer has weight 0, so that there is nothing to learn; remove the row")
        turns = turns[: learned[-1] + 1]
    roles = [turn["role"] for turn in turns[-2:]]
    if roles not in (["user", "assistant"], ["tool", "assistant"]):
        raise ValueError(f"messages must end with a user's and the assistant's answer, got {', '.join(roles)}")
    said = all(turn.keys() == {*_COMMON} and turn["role"] != "tool" for turn in turns) and tools is None
    return Turns(tuple((turn["role"], _text(turn)) for turn in turns), None if said else tuple(turns))


def read_tools(tools: Any) -> list[Any]:
    """The tools of a conversation, from a list or from its JSON.

    Raises:
        ValueError: they are something else.
    """
    if isinstance(tools, str):
        try:
            tools = json.loads(tools)
        except json.JSONDecodeError as error:
            raise ValueError(f"tools must be a list or its JSON, and this is none: {error}") from None
    if not isinstance(tools, list) or not tools or not all(isinstance(tool, Mapping) for tool in tools):
        raise ValueError(f"tools must be a list of descriptions, got {shown(tools)}")
    return tools


def _turn(number: int, message: Any) -> dict[str, Any]:
    if not isinstance(message, Mapping) or "role" not in message:
        raise ValueError(f"message {number} must have role and content, got {shown(message)}")
    role = message["role"]
    if role not in _KEYS:
        raise ValueError(f"message {number}: role {shown(role)} is not one of {', '.join(_KEYS)}")
    if role == "system" and number > 1:
        raise ValueError(f"message {number} is a system message; only the first may be")
    # What is null or empty says nothing, whatever it is called.
    given = {key: value for key, value in message.items() if value is not None and value not in ([], {})}
    for key in given:
        if key not in (*_COMMON, *_KEYS[role]):
            takes = [other for other, keys in _KEYS.items() if key in keys]
            of = f"; only the message of {' or '.join(takes)} may have it" if takes else ""
            hint = of or f"; {unknown(key, (*_COMMON, *_KEYS[role]), 'key')}"
            raise ValueError(f"message {number}: {key!r} of the {role} cannot be read{hint}; remove it")
    if given.get("weight", 1) not in (0, 1) or isinstance(given.get("weight"), bool):
        raise ValueError(f"message {number}: weight must be 0 or 1, got {shown(given['weight'])}")
    calls = _calls(number, given["tool_calls"]) if "tool_calls" in given else None
    content = given.get("content")
    if "content" not in message and calls is None:
        raise ValueError(f"message {number} must have role and content, got {shown(message)}")
    if not is_text(content) and not (role == "system" and content == "") and not (calls and content in (None, "")):
        raise ValueError(
            f"message {number}: content must be text that is not empty, got {shown(content)}{in_quotes(content)}"
        )
    return {**given, "content": content or "", **({"tool_calls": calls} if calls is not None else {})}


def _calls(number: int, calls: Any) -> list[dict[str, Any]]:
    if not isinstance(calls, list):
        raise ValueError(f"message {number}: tool_calls must be a list, got {shown(calls)}")
    return [_call(number, call) for call in calls]


def _call(number: int, call: Any) -> dict[str, Any]:
    function = call.get("function") if isinstance(call, Mapping) else None
    arguments = function.get("arguments", {}) if isinstance(function, Mapping) else None
    if isinstance(arguments, str):
        # As OpenAI's interface gives them; templates write JSON themselves, and would write text in quotes.
        try:
            arguments = json.loads(arguments or "{}")
        except json.JSONDecodeError:
            arguments = None
    if not isinstance(function, Mapping) or not is_text(function.get("name")) or not isinstance(arguments, Mapping):
        raise ValueError(
            f"message {number}: a call of a tool must have a function with its name and arguments, got {shown(call)}"
        )
    return {**call, "function": {**function, "arguments": arguments}}


def _text(turn: Mapping[str, Any]) -> str:
    calls: Sequence[Any] = turn.get("tool_calls", ())
    written = [json.dumps(call["function"], ensure_ascii=False, sort_keys=True) for call in calls]
    return "\n".join([*([turn["content"]] if turn["content"] or not calls else []), *written])
