"""What a recipe's schema says to a person: the wording of errors."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any, Literal, get_args, get_origin

from pydantic.dataclasses import is_pydantic_dataclass
from pydantic.fields import FieldInfo

from trex_ds.recipe_source import FieldPath, dotted
from trex_ds.wording import nearest, shortened

_EXPECTED = {
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "text",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "a section",
    "dataclass_type": "a section",
    "none_required": "null",
    "greater_than": "more than {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "less than {lt}",
    "less_than_equal": "at most {le}",
    "literal_error": "{expected}",
}
# How alike two names must be to suggest one for the other: more so if it is in another section.
_NEAR_ELSEWHERE = 0.75


def sections_in(annotation: Any) -> list[Any]:
    """The section classes that a field of this type can hold, itself or as items."""
    if is_pydantic_dataclass(annotation):
        return [annotation]
    return [found for argument in get_args(annotation) for found in sections_in(argument)]


def describe_error(schema: Any, path: FieldPath, errors: Sequence[Any], on_command_line: bool) -> str:
    """One line for all that pydantic says of the field at `path` (alternatives of a union)."""
    first = errors[0]
    if first["type"] == "unexpected_keyword_argument":
        return _unknown_key(schema, path, first["loc"], "--" if on_command_line else "")
    if first["type"] == "union_tag_invalid":
        return unknown_kind(re.findall("'([^']*)'", first["ctx"]["expected_tags"]), first["ctx"]["tag"])
    if first["type"] == "missing":
        # An item that a list lacks cannot be added from the command line.
        add = "" if on_command_line else "add it or "
        way_out = "" if isinstance(path[-1], int) else f"; {add}give --{dotted(path)} VALUE"
        return f"required, but missing{way_out}"
    value = first["input"]
    got = f"got {shortened(json.dumps(value, ensure_ascii=False, default=str))}"
    if not all(error["type"] in _EXPECTED for error in errors):
        return f"{errors[-1]['msg'].removeprefix('Value error, ')}, {got}"
    expected = [_EXPECTED[error["type"]].format(**error.get("ctx", {})) for error in errors]
    line = f"must be {' or '.join(dict.fromkeys(expected))}, {got}"
    choices = [c for e in errors if e["type"] == "literal_error" for c in re.findall("'([^']*)'", e["ctx"]["expected"])]
    near = nearest(str(value), choices)
    return f"{line}; did you mean {near[0]}?" if near else line


def unknown_kind(kinds: Sequence[str], given: Any) -> str:
    """Message for a section that has several kinds, told apart by its field `method`, and is given none of them."""
    near = nearest(str(given), kinds)
    hint = f"; did you mean {near[0]}?" if near else ""
    return f"method must be one of {', '.join(kinds)}, got {json.dumps(given)}{hint}"


def kind_of(cls: Any) -> str | None:
    """The value of the literal field `method` that makes a section this one of several kinds, if it has one."""
    field = cls.__pydantic_fields__.get("method")
    literal = field is not None and get_origin(field.annotation) is Literal
    return field.default if literal else None


def is_switch(schema: Any, name: str) -> bool:
    """Whether the field with this dotted name is true or false, and nothing else."""
    *parent, last = name.split(".")
    return any(
        last in cls.__pydantic_fields__ and cls.__pydantic_fields__[last].annotation is bool
        for cls in _sections_at(schema, tuple(parent))
    )


def _unknown_key(schema: Any, path: FieldPath, location: Sequence[int | str], dashes: str) -> str:
    key, parent = str(path[-1]), path[:-1]
    # Of several kinds of a section, pydantic's location names the one that was chosen.
    kinds = _sections_at(schema, parent)
    sections = [cls for cls in kinds if kind_of(cls) in (None, *location)]
    if others := [kind_of(cls) for cls in kinds if cls not in sections and key in cls.__pydantic_fields__]:
        chosen = kind_of(sections[0])
        return (
            f"not a key of method {chosen}, but of {', '.join(map(str, others))}; remove it, or give the section "
            f"whole, as --{dotted(parent)} '{{method: {chosen}, ...}}'"
        )
    siblings = [name for cls in sections for name in cls.__pydantic_fields__]
    if near := nearest(key, siblings):
        return f"unknown key; did you mean {dashes}{dotted((*parent, near[0]))}?"
    elsewhere: dict[str, FieldPath] = {}
    for other, _, _ in _all_fields(schema):
        elsewhere.setdefault(str(other[-1]), other)
    if near := nearest(key, elsewhere, least=_NEAR_ELSEWHERE):
        return f"unknown key; did you mean {dashes}{dotted(elsewhere[near[0]])}?"
    return f"unknown key; known here: {', '.join(dashes + name for name in siblings)}"


def _sections_at(schema: Any, path: FieldPath) -> list[Any]:
    sections = [schema]
    for key in path:
        fields = [cls.__pydantic_fields__[key] for cls in sections if key in cls.__pydantic_fields__]
        if fields:  # otherwise an index into a list of sections
            sections = [nested for field in fields for nested in sections_in(field.annotation)]
    return sections


def _all_fields(schema: Any, prefix: FieldPath = ()) -> Iterator[tuple[FieldPath, FieldInfo, str | None]]:
    """Every field with its path and its section's kind, outermost first; `N` stands for the number of a list's item."""
    for name, field in schema.__pydantic_fields__.items():
        path = (*prefix, name)
        yield path, field, kind_of(schema)
        for suffix, nested in _nested(field.annotation):
            yield from _all_fields(nested, path + suffix)


def _nested(annotation: Any, suffix: FieldPath = ()) -> Iterator[tuple[FieldPath, Any]]:
    if is_pydantic_dataclass(annotation):
        yield suffix, annotation
    item: FieldPath = {list: ("N",), tuple: ("N",), dict: ("NAME",)}.get(get_origin(annotation), ())
    for argument in get_args(annotation):
        yield from _nested(argument, suffix + item)
