"""What a recipe's schema says to a person: the `--help` text and the wording of errors."""

from __future__ import annotations

import difflib
import json
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.dataclasses import is_pydantic_dataclass
from pydantic.fields import FieldInfo
from pydantic_core import to_jsonable_python

from trex_ds.recipe_source import FieldPath, dotted

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
_NEAR, _NEAR_ELSEWHERE = 0.6, 0.75


def sections_in(annotation: Any) -> list[Any]:
    """The section classes that a field of this type can hold, itself or as items."""
    if is_pydantic_dataclass(annotation):
        return [annotation]
    return [found for argument in get_args(annotation) for found in sections_in(argument)]


def describe_error(schema: Any, path: FieldPath, errors: Sequence[Any]) -> str:
    """One line for all that pydantic says of the field at `path` (alternatives of a union)."""
    first = errors[0]
    if first["type"] == "unexpected_keyword_argument":
        return _unknown_key(schema, path, first["loc"])
    if first["type"] == "union_tag_invalid":
        return _unknown_kind(first["ctx"])
    if first["type"] == "missing":
        # An item that a list lacks cannot be added from the command line.
        way_out = "" if isinstance(path[-1], int) else f"; add it or give --{dotted(path)} VALUE"
        return f"required, but missing{way_out}"
    value = first["input"]
    shown = json.dumps(value, ensure_ascii=False, default=str)
    got = f"got {shown if len(shown) <= 80 else shown[:77] + '...'}"
    if not all(error["type"] in _EXPECTED for error in errors):
        return f"{errors[-1]['msg'].removeprefix('Value error, ')}, {got}"
    expected = [_EXPECTED[error["type"]].format(**error.get("ctx", {})) for error in errors]
    line = f"must be {' or '.join(dict.fromkeys(expected))}, {got}"
    choices = [c for e in errors if e["type"] == "literal_error" for c in re.findall("'([^']*)'", e["ctx"]["expected"])]
    near = difflib.get_close_matches(str(value), choices, n=1, cutoff=_NEAR)
    return f"{line}; did you mean {near[0]}?" if near else line


def _unknown_kind(context: dict[str, Any]) -> str:
    """Message for a section that has several kinds, told apart by one of its fields."""
    kinds = re.findall("'([^']*)'", context["expected_tags"])
    near = difflib.get_close_matches(str(context["tag"]), kinds, n=1, cutoff=_NEAR)
    hint = f"; did you mean {near[0]}?" if near else ""
    return f"method must be one of {', '.join(kinds)}, got {json.dumps(context['tag'])}{hint}"


def kind_of(cls: Any) -> str | None:
    """The value of the literal field `method` that makes a section this one of several kinds, if it has one."""
    field = cls.__pydantic_fields__.get("method")
    literal = field is not None and get_origin(field.annotation) is Literal
    return field.default if literal else None


def _unknown_key(schema: Any, path: FieldPath, location: Sequence[int | str]) -> str:
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
    if near := difflib.get_close_matches(key, siblings, n=1, cutoff=_NEAR):
        return f"unknown key; did you mean {dotted((*parent, near[0]))}?"
    elsewhere: dict[str, FieldPath] = {}
    for other, _, _ in _all_fields(schema):
        elsewhere.setdefault(str(other[-1]), other)
    if near := difflib.get_close_matches(key, elsewhere, n=1, cutoff=_NEAR_ELSEWHERE):
        return f"unknown key; did you mean {dotted(elsewhere[near[0]])}?"
    return f"unknown key; known here: {', '.join(siblings)}"


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


def help_text(schema: Any, description: str) -> str:
    """What `--help` prints: every field of `schema` with its type, default and description."""
    lines = [
        f"usage: {Path(sys.argv[0]).name} --config FILE [--any.field VALUE ...]",
        "",
        description,
        "",
        "FILE is a recipe in YAML. Every field of it can be given on the command line too; values are YAML.",
        "",
    ]
    entries: dict[tuple[str, ...], list[str]] = {}  # one for all kinds of a section in which a field is the same
    for path, field, kind in _all_fields(schema):
        sections = sections_in(field.annotation)
        kinds = [k for cls in sections if (k := kind_of(cls))]
        shape = "a section" if kinds else _type_name(field.annotation)
        default = _default(field, bool(sections))
        if kind is not None and path[-1] == "method":
            shape, default = "", ""
        text = field.description or (sections[0].__doc__ if sections else None) or ""
        entries.setdefault((dotted(path), shape, default, text.strip().split("\n\n")[0]), []).append(kind or "")
    for (name, shape, default, text), kinds in entries.items():
        which = f"  [{', '.join(kinds)}]" if kinds[0] else ""
        lines.append(f"--{name}  {shape}{default}{which}")
        lines += [f"    {line.strip()}" for line in text.splitlines()]
    return "\n".join(lines)


def _default(field: FieldInfo, is_section: bool) -> str:
    if field.is_required():
        return "  (required)"
    default = to_jsonable_python(field.get_default(call_default_factory=True, validated_data={}))
    # A section's defaults are those of its fields, which follow.
    return "" if is_section and isinstance(default, dict) else f" = {json.dumps(default, ensure_ascii=False)}"


def _type_name(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation is NoneType:
        return "null"
    if origin is Annotated:
        return _type_name(arguments[0])
    if origin is Literal:
        return " | ".join(map(str, arguments))
    if origin in (Union, UnionType):
        return " | ".join(map(_type_name, arguments))
    if origin is not None:
        return f"{origin.__name__}[{', '.join(map(_type_name, arguments))}]"
    return getattr(annotation, "__name__", str(annotation))
