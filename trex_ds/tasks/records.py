"""Conversion of one row of data to one example.

A row has a prompt with its answer, or the messages of a conversation:

    {"prompt": "2 + 2 =", "answer": "4", "task": "sums", "choices": ["3", "4"], "system": "Be brief."}
    {"messages": [{"role": "user", "content": "2 + 2 ="}, {"role": "assistant", "content": "4"}], "task": "sums"}
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from trex_ds.tasks.base import Example, normalized
from trex_ds.tasks.messages import Turns, read_tools, read_turns
from trex_ds.tasks.wording import in_quotes, is_text, shown, unknown

FIELDS = ("prompt", "answer", "task", "choices", "system", "messages", "tools")
_IN_PROMPT = ("prompt", "answer", "system")  # what messages take the place of

_MOST_DIGITS = 100

Row = tuple[str, bytes | Mapping[str, Any]]
"""Place of a row, for errors, and its content: a line of JSON still to be read, or the values by column."""


@dataclass
class Columns:
    """The columns that rows have, in the order in which they were seen."""

    names: dict[str, None] = field(default_factory=dict)
    inside: dict[str, str] = field(default_factory=dict)
    """Names that are no columns, since they lie within the values of one: name -> column."""

    def see(self, row: Mapping[str, Any]) -> None:
        """Take a row into account."""
        self.names.update(dict.fromkeys(row))
        for column, value in row.items():
            if isinstance(value, Mapping):
                self.inside.update(dict.fromkeys(value, column))


def columns_problems(columns: Mapping[str, str]) -> list[str]:
    """What is wrong with a map from our fields to the columns of the data."""
    found = [f"columns: {unknown(name, FIELDS, 'field')}" for name in columns if name not in FIELDS]
    both = [name for name in _IN_PROMPT if name in columns]
    if "messages" in columns and both:
        found.append(f"columns: messages take the place of {both[0]}; name one of them")
    elif len(set(columns.values())) < len(columns):
        column = next(column for column in columns.values() if list(columns.values()).count(column) > 1)
        names = [name for name, other in columns.items() if other == column]
        found.append(f"columns: {' and '.join(names)} are all to be in {column!r}; name a column for each")
    elif columns and not found and "messages" not in columns and not {"prompt", "answer"} <= columns.keys():
        found.append("columns: must name prompt and answer, or messages; where it is given, nothing else is read")
    return found


def check_columns(table: Columns, columns: Mapping[str, str], where: str) -> None:
    """Refuse a table without the columns that `columns` names, or without those of our fields if it is empty.

    Args:
        table: what it has.
        columns: our field -> the table's column.
        where: how errors call the table.

    Raises:
        ValueError: names the table and the nearest column, or all of them.
    """
    available = list(table.names)
    for name, column in columns.items():
        if column not in available:
            outer = table.inside.get(column.rpartition(".")[2])
            problem = unknown(column, available, "column")
            if outer is not None:
                problem = f"{column!r} lies within the column {outer!r}, which is not looked into; make it a column"
            raise ValueError(f"{where}: columns.{name}: {problem}")
    if not columns and "messages" not in available and not {"prompt", "answer"} <= set(available):
        raise ValueError(
            f"{where} has the columns {', '.join(available)}; say which hold what: "
            "columns: {prompt: COLUMN, answer: COLUMN}, or {messages: COLUMN}"
        )


def parse(
    row: bytes | Mapping[str, Any], default_task: str, columns: Mapping[str, str], seen: Columns | None = None
) -> Example:
    """The example that a row describes.

    With `columns` (our field -> the data's column), or if the row is no line of JSON, other columns are
    ignored, and null or an empty list is nothing; else these are errors, since a key that nobody reads is
    mostly a misspelt one. What columns a line of JSON has is added to `seen`.

    Raises:
        ValueError: everything that is wrong with the row, without saying where it stands.
    """
    record = _decode(row) if isinstance(row, bytes) else row
    if seen is not None and isinstance(row, bytes):
        seen.see(record)
    if isinstance(row, bytes) and not columns:
        values, found = record, [unknown(key, FIELDS, "key") for key in record if key not in FIELDS]
        found += [f"messages take the place of {key}" for key in _IN_PROMPT if "messages" in record and key in record]
    else:
        named = ((name, record.get(columns.get(name, name))) for name in columns or FIELDS)
        values, found = {name: value for name, value in named if value not in (None, [])}, []
    turns = Turns((), None)
    tools = None
    try:
        tools = read_tools(values["tools"]) if "tools" in values else None
        if "messages" in values:
            turns = read_turns(
                values["messages"] if isinstance(row, bytes) else _without_nulls(values["messages"]), tools
            )
    except ValueError as error:
        found.append(str(error))
    if "messages" not in values:
        turns, problems = _prompt_and_answer(values, columns)
        found += [*problems, *(["tools need messages"] if tools is not None else [])]
    if "task" in values and not is_text(values["task"]):
        found.append(f"task must be text that is not empty, got {shown(values['task'])}")
    choices = values.get("choices", [])
    if "choices" in values:
        found += _choices_problems(choices)
    if found:
        raise ValueError("; ".join(found))
    *history, (_, prompt), (_, answer) = turns.texts
    if choices:
        answer = _choice(answer, choices)
    conversation = None if turns.messages is None else {"messages": list(turns.messages), "tools": tools}
    task = values.get("task", default_task)
    example = Example(prompt, answer, task, tuple(choices), tuple(history), conversation=conversation)
    try:
        "".join([example.text, answer, task, *choices, json.dumps(conversation, ensure_ascii=False)]).encode()
    except UnicodeEncodeError:  # such as "\ud800", which JSON allows and tokenizers do not
        raise ValueError("has half of a surrogate pair, which is not a character") from None
    return example


def _decode(line: bytes) -> dict[str, Any]:
    if b"\0" in line:
        raise ValueError("has NUL bytes, so it is not text, or damaged")
    try:
        record = json.loads(line.decode("utf-8-sig"), object_pairs_hook=_object, parse_int=_integer)
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8: {error}") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg} at column {error.colno}") from None
    except RecursionError:
        raise ValueError("not JSON that can be read: nested too deeply") from None
    if not isinstance(record, dict):
        raise ValueError(f"must be an object with prompt and answer, or messages, got {shown(record)}")
    return record


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object, in which no key may stand twice: readers differ in which of the values they take."""
    values = dict(pairs)
    if len(values) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {twice!r} stands {keys.count(twice)} times in one object; keep one")
    return values


def _integer(digits: str) -> int:
    if len(digits) > _MOST_DIGITS:
        raise ValueError(f"has a number of {len(digits)} digits, which is not a choice's position; write it as text")
    return int(digits)


def _without_nulls(value: Any) -> Any:
    """A value of a table, whose type gives each object all keys that any of them has, without those that are null."""
    if isinstance(value, Mapping):
        return {key: _without_nulls(inner) for key, inner in value.items() if inner is not None}
    return [_without_nulls(inner) for inner in value] if isinstance(value, list) else value


def _prompt_and_answer(values: Mapping[str, Any], columns: Mapping[str, str]) -> tuple[Turns, list[str]]:
    """The turns of a row without messages, and what is wrong with them."""
    found = [
        f"{key} is missing" + (f", which column {columns[key]!r} should hold" if key in columns else "")
        for key in ("prompt", "answer")
        if key not in values
    ]
    system, prompt, answer = (values.get(key) for key in ("system", "prompt", "answer"))
    if "prompt" in values and not is_text(prompt):
        found.append(f"prompt must be text that is not empty, got {shown(prompt)}{in_quotes(prompt)}")
    if "answer" in values and not is_text(answer) and not (_is_whole(answer) and "choices" in values):
        hint = ", or give the choices that it is the position in" if _is_whole(answer) else ""
        found.append(f"answer must be text that is not empty, got {shown(answer)}{in_quotes(answer)}{hint}")
    if "system" in values and not isinstance(system, str):
        found.append(f"system must be text, got {shown(system)}")
    head = [("system", system)] if isinstance(system, str) else []
    return Turns((*head, ("user", prompt), ("assistant", answer)), None), found  # type: ignore[arg-type]


def _choices_problems(choices: Any) -> list[str]:
    if not isinstance(choices, list) or len(choices) < 2 or not all(map(is_text, choices)):
        return [f"choices must be a list of at least two texts, got {shown(choices)}"]
    if len(set(map(normalized, choices))) < len(choices):
        return [
            f"choices has one twice, up to case and white space, which answers are not compared by: {shown(choices)}"
        ]
    return []


def _choice(answer: str | int, choices: list[str]) -> str:
    if isinstance(answer, int):
        if not 0 <= answer < len(choices):
            raise ValueError(f"answer {answer} is not a position among {len(choices)} choices, 0 to {len(choices) - 1}")
        return choices[answer]
    if answer not in choices:
        raise ValueError(f"answer {shown(answer)} is not among the choices {shown(choices)}")
    return answer


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
