"""From one row of data to one example.

A row has a prompt with its answer, or the messages of a conversation:

    {"prompt": "2 + 2 =", "answer": "4", "task": "sums", "choices": ["3", "4"], "system": "Be brief."}
    {"messages": [{"role": "user", "content": "2 + 2 ="}, {"role": "assistant", "content": "4"}], "task": "sums"}
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from trex_ds.tasks.base import Example

FIELDS = ("prompt", "answer", "task", "choices", "system", "messages")
_IN_PROMPT = ("prompt", "answer", "system")  # what messages take the place of
_ROLES = ("system", "user", "assistant")

Row = tuple[str, bytes | Mapping[str, Any]]
"""Where it stands, for errors, and what it is: a line of JSON still to be read, or the values by column."""


def columns_problems(columns: Mapping[str, str]) -> list[str]:
    """What is wrong with a map from our fields to the columns of the data."""
    found = [f"columns: {unknown(field, FIELDS, 'field')}" for field in columns if field not in FIELDS]
    both = [field for field in _IN_PROMPT if field in columns]
    if "messages" in columns and both:
        found.append(f"columns: messages take the place of {both[0]}; name one of them")
    elif columns and not found and "messages" not in columns and not {"prompt", "answer"} <= columns.keys():
        found.append("columns: must name prompt and answer, or messages; where it is given, nothing else is read")
    return found


def check_columns(available: Iterable[str], columns: Mapping[str, str], where: str) -> None:
    """Refuse a table without the columns that `columns` names, or without those of our fields if it is empty.

    Raises:
        ValueError: names the table and the nearest column, or all of them.
    """
    available = list(available)
    for field, column in columns.items():
        if column not in available:
            raise ValueError(f"{where}: columns.{field}: {unknown(column, available, 'column')}")
    if not columns and "messages" not in available and not {"prompt", "answer"} <= set(available):
        raise ValueError(
            f"{where} has the columns {', '.join(available)}; say which hold what: "
            "columns: {prompt: COLUMN, answer: COLUMN}, or {messages: COLUMN}"
        )


def parse(row: bytes | Mapping[str, Any], default_task: str, columns: Mapping[str, str]) -> Example:
    """The example that a row describes.

    With `columns` (our field -> the data's column), or if the row is no line of JSON, other columns are
    ignored, and null or an empty list is nothing; else these are errors, since a key that nobody reads is
    mostly a misspelt one.

    Raises:
        ValueError: everything that is wrong with the row, without saying where it stands.
    """
    record = _decode(row) if isinstance(row, bytes) else row
    if isinstance(row, bytes) and not columns:
        values, found = record, [unknown(key, FIELDS, "key") for key in record if key not in FIELDS]
        found += [f"messages take the place of {key}" for key in _IN_PROMPT if "messages" in record and key in record]
    else:
        named = ((field, record.get(columns.get(field, field))) for field in columns or FIELDS)
        values, found = {field: value for field, value in named if value not in (None, [])}, []
    if "messages" in values:
        turns, problems = _turns(values["messages"])
    else:
        turns, problems = _prompt_and_answer(values)
    found += problems
    if "task" in values and not _is_text(values["task"]):
        found.append(f"task must be text that is not empty, got {_shown(values['task'])}")
    choices = values.get("choices", [])
    if "choices" in values:
        found += _choices_problems(choices)
    if found:
        raise ValueError("; ".join(found))
    *history, (_, prompt), (_, answer) = turns
    if choices:
        answer = _choice(answer, choices)
    example = Example(prompt, answer, values.get("task", default_task), tuple(choices), tuple(history))
    try:
        "".join([example.text, answer, example.task, *choices]).encode()
    except UnicodeEncodeError:  # such as "\ud800", which JSON allows and tokenizers do not
        raise ValueError("has half of a surrogate pair, which is no character") from None
    return example


def unknown(name: str, known: Iterable[str], kind: str) -> str:
    """Says that a name is unknown, with the nearest known one, or with all of them."""
    known = list(known)
    near = difflib.get_close_matches(name, known, n=1)
    return f"unknown {kind} {name!r}; " + (f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}")


def _decode(line: bytes) -> dict[str, Any]:
    try:
        record = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8: {error}") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg} at column {error.colno}") from None
    except RecursionError:
        raise ValueError("not JSON that can be read: nested too deeply") from None
    if not isinstance(record, dict):
        raise ValueError(f"must be an object with prompt and answer, or messages, got {_shown(record)}")
    return record


def _prompt_and_answer(values: Mapping[str, Any]) -> tuple[list[tuple[str, Any]], list[str]]:
    """The turns of a row without messages, and what is wrong with them."""
    found = [f"{key} is missing" for key in ("prompt", "answer") if key not in values]
    system, prompt, answer = (values.get(key) for key in ("system", "prompt", "answer"))
    if "prompt" in values and not _is_text(prompt):
        found.append(f"prompt must be text that is not empty, got {_shown(prompt)}")
    if "answer" in values and not _is_text(answer) and not (_is_whole(answer) and "choices" in values):
        hint = "; the position of a choice needs choices" if _is_whole(answer) else ""
        found.append(f"answer must be text that is not empty, got {_shown(answer)}{hint}")
    if "system" in values and not isinstance(system, str):
        found.append(f"system must be text, got {_shown(system)}")
    head = [("system", system)] if isinstance(system, str) else []
    return [*head, ("user", prompt), ("assistant", answer)], found


def _turns(messages: Any) -> tuple[list[tuple[str, Any]], list[str]]:
    """The turns of a conversation, and what is wrong with them: the first problem, since others follow from it."""
    if not isinstance(messages, list) or not messages:
        return [], [f"messages must be a list with at least a user's and an assistant's, got {_shown(messages)}"]
    turns = []
    for number, message in enumerate(messages, start=1):
        if not isinstance(message, Mapping) or not {"role", "content"} <= message.keys():
            return [], [f"message {number} must have role and content, got {_shown(message)}"]
        role, content = message["role"], message["content"]
        if role not in _ROLES:
            return [], [f"message {number}: role {_shown(role)} is none of {', '.join(_ROLES)}"]
        if role == "system" and number > 1:
            return [], [f"message {number} is a system message; only the first may be"]
        if not _is_text(content) and not (role == "system" and content == ""):
            return [], [f"message {number}: content must be text that is not empty, got {_shown(content)}"]
        turns.append((role, content))
    roles = [role for role, _ in turns[-2:]]
    if roles != ["user", "assistant"]:
        return [], [f"messages must end with a user's and the assistant's answer, got {', '.join(roles)}"]
    return turns, []


def _choices_problems(choices: Any) -> list[str]:
    if not isinstance(choices, list) or len(choices) < 2 or not all(map(_is_text, choices)):
        return [f"choices must be a list of at least two texts, got {_shown(choices)}"]
    if len(set(choices)) < len(choices):
        return [f"choices has one twice: {_shown(choices)}"]
    return []


def _choice(answer: str | int, choices: list[str]) -> str:
    if isinstance(answer, int):
        if not 0 <= answer < len(choices):
            raise ValueError(f"answer {answer} is no position among {len(choices)} choices, 0 to {len(choices) - 1}")
        return choices[answer]
    if answer not in choices:
        raise ValueError(f"answer {_shown(answer)} is not among the choices {_shown(choices)}")
    return answer


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=repr)
    return text if len(text) <= 80 else text[:77] + "..."
