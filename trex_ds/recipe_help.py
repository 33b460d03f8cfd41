"""What `--help` prints of a schema: its fields by section, each with its type, default and description."""

from __future__ import annotations

import json
import shutil
import textwrap
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.dataclasses import is_pydantic_dataclass
from pydantic.fields import FieldInfo
from pydantic_core import to_jsonable_python

from trex_ds.recipe_schema import kind_of, sections_in, unknown_kind
from trex_ds.recipe_source import FieldPath, dotted

_WIDEST = 110
# What stands for an item in the names of the fields of a list's or dict's sections.
_ITEMS: dict[Any, FieldPath] = {list: ("N",), tuple: ("N",), dict: ("NAME",)}


def help_text(schema: Any, description: str, data: Any) -> str:
    """What `--help` prints.

    Args:
        schema: the class that the recipe or the command line is read into.
        description: the command's own text, which goes first.
        data: what the recipe and the overrides give, as far as they are given. Where a section has several kinds, the
            fields of the one chosen there are shown.

    Raises:
        ValueError: where `data` chooses a kind that there is not.
    """
    width = min(shutil.get_terminal_size((100, 24)).columns, _WIDEST)
    blocks = [_paragraph(part, width) for part in description.strip().split("\n\n")]
    return "\n\n".join([*blocks, *_groups(schema, (), data, width)])


def _paragraph(text: str, width: int) -> str:
    """A paragraph filled to `width`; indented lines and the line above them stay as they are."""
    lines = text.splitlines()
    return text if any(line.startswith(" ") for line in lines) else _wrapped(" ".join(lines), width, inner="")


def _groups(cls: Any, path: FieldPath, data: Any, width: int, title: str = "") -> list[str]:
    """The fields of a section, then the sections within it, each a block of lines under its title."""
    lines, nested = [title] if title else [], []
    for name, field in cls.__pydantic_fields__.items():
        sections, container = sections_in(field.annotation), get_origin(field.annotation)
        where = (*path, name, *_ITEMS.get(container, ()))
        has_kinds = any(kind_of(section) for section in sections)
        # A section that is always there is a block; what may be null, text or a list is a line of its own too.
        if not (is_pydantic_dataclass(field.annotation) or (has_kinds and container not in _ITEMS)):
            lines += _entry((*path, name), field, is_kind=name == "method" and kind_of(cls) is not None, width=width)
        if not sections or (has_kinds and container in _ITEMS):
            continue
        inner = data.get(name) if isinstance(data, dict) else None
        if has_kinds:
            section = _chosen(sections, inner, field)
            kinds = ", ".join(str(kind_of(one)) for one in sections)
            heading = f"{dotted(where)}, with method {kind_of(section)}: {_text(field, section)} Methods: {kinds}."
            heading += f" --{dotted(where)}.method NAME --help shows the fields of another."
        else:
            section = sections[0]
            heading = f"{dotted(where)}: {_text(None if container in _ITEMS else field, section)}"
        nested += _groups(section, where, inner, width, _wrapped(heading, width))
    return ["\n".join(lines), *nested] if lines else nested


def _chosen(sections: list[Any], data: Any, field: FieldInfo) -> Any:
    default = field.get_default(call_default_factory=True, validated_data={})
    kind = data.get("method", default.method) if isinstance(data, dict) else default.method
    kinds = {kind_of(section): section for section in sections}
    if kind not in kinds:
        raise ValueError(unknown_kind([str(known) for known in kinds], kind))
    return kinds[kind]


def _text(field: FieldInfo | None, section: Any) -> str:
    return ((field.description if field else None) or section.__doc__ or "").strip().split("\n\n")[0]


def _wrapped(text: str, width: int, indent: str = "", inner: str = "    ") -> str:
    # Two spaces between a name and its type are kept, and names stay whole.
    return textwrap.fill(
        text.replace("\n", " "),
        width,
        initial_indent=indent,
        subsequent_indent=indent + inner,
        break_on_hyphens=False,
        break_long_words=False,
    )


def _entry(path: FieldPath, field: FieldInfo, is_kind: bool, width: int) -> list[str]:
    shape = "NAME" if is_kind else f"{_type_name(field.annotation)}{_default(field)}"
    lines = [_wrapped(f"--{dotted(path)}  {shape}", width, "  ", "        ")]
    if field.description:
        lines.append(_wrapped(field.description.split("\n\n")[0], width, "      ", ""))
    return lines


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "  (required)"
    default = to_jsonable_python(field.get_default(call_default_factory=True, validated_data={}))
    return "" if isinstance(default, dict) and default else f" = {json.dumps(default, ensure_ascii=False)}"


def _type_name(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation is NoneType:
        return "null"
    if origin in (Union, UnionType) and any(kind_of(section) for section in sections_in(annotation)):
        return "section with a method"
    if origin is Annotated:
        return _type_name(arguments[0])
    if origin is Literal:
        return " | ".join(map(str, arguments))
    if origin in (Union, UnionType):
        return " | ".join(map(_type_name, arguments))
    if origin is not None:
        return f"{origin.__name__}[{', '.join(map(_type_name, arguments))}]"
    if is_pydantic_dataclass(annotation):
        return "section"
    return getattr(annotation, "__name__", str(annotation))
