"""Recipes: YAML plus command-line overrides, checked whole before anything is loaded.

A section is a dataclass beside the code that it configures, made with `@section`. Every problem
is found in one go and printed together; an unknown key comes with its nearest neighbor.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import io
import json
import os
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from typing import Annotated, Any, NoReturn, TypeVar, dataclass_transform, get_type_hints

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as pydantic_dataclass
from pydantic.dataclasses import is_pydantic_dataclass
from pydantic_core import to_jsonable_python

from trex_ds.files import ensure_home
from trex_ds.quiet import quiet_imports
from trex_ds.recipe_help import help_text
from trex_ds.recipe_schema import describe_error, is_switch, sections_in
from trex_ds.recipe_source import COMMAND_LINE, FieldPath, Source, parse_arguments

T = TypeVar("T")

EXIT_USAGE = 2
EXIT_PIPE = 141
"""What shells report of a program that wrote to a pipe without a reader."""
# How long other ranks let rank 0 speak first: a launcher ends all ranks soon after one has exited.
_RANK_ZERO_FIRST_SECONDS = 3.0


@dataclass_transform(field_specifiers=(dataclasses.field, Field))
def section(cls: type[T]) -> type[T]:
    """Make a dataclass that checks its values and takes no unknown field.

    A string literal under a field is its description in `--help`. A section may define
    `problems(self) -> list[str]` for checks of its values beyond their types: one line a problem, headed
    by the field's name and a colon where it concerns one field; and `problems_here(self) -> list[str]` for
    what only this machine and its folders can tell. The latter is asked of a recipe, and of those of its
    sections that it names in `checked_here`, because not every command runs a recipe on this machine.
    `library_problems(self) -> list[str]` is for checks that import a large library. It is asked only of a
    recipe without other problems. Fields that a section inherits keep their descriptions.
    """
    for base in cls.__mro__[1:]:
        if "__dataclass_fields__" in vars(base):
            _describe_fields(base)
    decorate: Callable[[type[T]], Any] = pydantic_dataclass(
        config=ConfigDict(extra="forbid", use_attribute_docstrings=True)
    )
    return decorate(cls)


def _describe_fields(cls: type) -> None:
    """Put the literals under a dataclass's fields where pydantic finds them in a class that inherits the fields."""
    own = inspect.get_annotations(cls).keys()
    fields = [field for field in dataclasses.fields(cls) if field.name in own and isinstance(field.type, str)]
    if not fields:  # it was a base before
        return
    hints = get_type_hints(cls, include_extras=True)
    literals = {} if is_pydantic_dataclass(cls) else _literals_under_fields(cls)
    for field in fields:
        text = literals.get(field.name) or cls.__pydantic_fields__[field.name].description  # type: ignore[attr-defined]
        field.type = Annotated[hints[field.name], Field(description=text)]


def _literals_under_fields(cls: type) -> dict[str, str]:
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    assert isinstance(definition, ast.ClassDef)
    return {
        field.target.id: inspect.cleandoc(text.value.value)
        for field, text in pairwise(definition.body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
        and isinstance(text.value.value, str)
    }


class ConfigError(ValueError):
    """Everything that is wrong with a recipe: one line a problem, each naming its field."""

    def __init__(self, problems: Sequence[str]):
        self.problems = list(problems)
        count = "1 problem" if len(self.problems) == 1 else f"{len(self.problems)} problems"
        super().__init__("\n".join([f"{count} found", *(f"  {line}" for line in self.problems)]))


def read_recipe(schema: type[T], argv: Sequence[str], description: str | None) -> T:
    """Read `--config FILE` and `--any.field value` overrides from `argv` into a `schema`.

    Values are YAML 1.2 and are taken strictly: `1e-4` is a number, `no` is text, `"3"` is not a whole number. A field
    that is true or false needs no value on the command line: `--training.resume`. `--tasks.0.weight 2` changes an item
    of a list, `--tasks '[...]'` the whole list. FILE may also be the name of a recipe of this package.
    `--local_rank`, which launchers add, is ignored.

    Args:
        schema: the recipe's class.
        argv: the command line, without the command.
        description: what `--help` prints above the fields. It prints those of the chosen method, and exits.

    Raises:
        ConfigError: with every problem of the command line, the file and the sections' own checks.
    """
    arguments = parse_arguments(argv, partial(is_switch, schema))
    arguments.problems += [
        f"{word!r}: not understood; overrides look like --section.field value ({COMMAND_LINE})"
        for word in arguments.words
    ]
    if arguments.help:
        _print_help(schema, description, Source(arguments, None if arguments.config else {}))
    return _checked(schema, Source(arguments))


def read_flags(schema: type[T], argv: Sequence[str], description: str | None, words: str | None = None) -> T:
    """Read a command line of flat `--field value` options, without a recipe, into a `schema`.

    Args:
        schema: a section whose fields are the options.
        argv: the command line, without the command.
        description: what `--help` prints above the options.
        words: the field, a list of texts, that takes what belongs to no option; None: there is no such field.

    Raises:
        ConfigError: with every problem of the command line.
    """
    arguments = parse_arguments(argv, partial(is_switch, schema))
    if arguments.config is not None:
        arguments.overrides.append(("config", arguments.config))
    # Some options had hyphens once.
    arguments.overrides = [(name.replace("-", "_"), value) for name, value in arguments.overrides]
    if words is None:
        arguments.problems += [f"{word!r}: not understood; options look like --name VALUE" for word in arguments.words]
    source = Source(arguments, {words: arguments.words} if words and arguments.words else {})
    if arguments.help:
        _print_help(schema, description, source)
    return _checked(schema, source)


def _print_help(schema: type, description: str | None, source: Source) -> NoReturn:
    try:
        text = help_text(schema, description or "", source.data)
    except ValueError as error:
        raise ConfigError([str(error)]) from None
    if _rank() == 0:
        print(text)
    raise SystemExit(0)


def _checked(schema: type[T], source: Source) -> T:
    if source.data is None:
        raise ConfigError(source.problems)
    recipe, problems = _validate(schema, source)
    if recipe is not None:
        problems += _own_problems(recipe, (), source)
        for name in _checked_here(schema):
            problems += _problems_here(getattr(recipe, name), (name,), source)
        problems += _problems_here(recipe, (), source)
        if not (source.problems or problems):
            problems += _own_problems(recipe, (), source, "library_problems")
    if source.problems or problems:
        raise ConfigError(source.problems + problems)
    assert recipe is not None
    return recipe


def run_or_exit(main: Callable[[], object]) -> None:
    """Run an entry point; a ConfigError ends the process with code 2, a closed pipe with 141, without a traceback.

    Rank 0 prints the error. Where it is the error of another node alone (a file that is not there),
    its first rank prints it too, after leaving rank 0 the time to end the job.
    """
    ensure_home()
    quiet_imports()
    print_any_text()
    try:
        try:
            main()
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read the output, such as `head`, has enough; what is left to print goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(EXIT_PIPE) from None
    except ConfigError as error:
        rank = _rank()
        if rank == 0:
            print(f"error: {error}", file=sys.stderr, flush=True)
        else:
            time.sleep(_RANK_ZERO_FIRST_SECONDS)
            if os.environ.get("LOCAL_RANK") == "0":
                print(f"error on rank {rank}: {error}", file=sys.stderr, flush=True)
        raise SystemExit(EXIT_USAGE) from None


def print_any_text() -> None:
    """Have what standard output cannot encode (in a locale without UTF-8) printed as escapes, in place of an error."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def to_dict(recipe: object) -> dict[str, Any]:
    """The resolved recipe as plain dicts, lists and scalars: for a YAML file or for logging."""
    return to_jsonable_python(recipe, inf_nan_mode="constants")


def flatten(nested: dict[str, Any]) -> dict[str, Any]:
    """`{"training": {"seed": 1}}` as `{"training.seed": 1}`, the names that overrides use.

    Items of a list of sections are numbered (`tasks.0.name`); other lists stay values.
    """
    return dict(_leaves(nested, ""))


def _leaves(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    prefix = f"{name}." if name else ""
    if isinstance(value, dict) and (value or not name):
        for key, item in value.items():
            yield from _leaves(item, f"{prefix}{key}")
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        for index, item in enumerate(value):
            yield from _leaves(item, f"{prefix}{index}")
    else:
        yield name, value


def _rank() -> int:
    return int(os.environ.get("RANK") or os.environ.get("LOCAL_RANK") or 0)


def _validate(schema: type[T], source: Source) -> tuple[T | None, list[str]]:
    """The recipe, or None and what is wrong with it; sections that are sound get their own checks."""
    try:
        return _parse(schema, source.data), []
    except ValidationError as error:
        errors = [(_data_path(e["loc"], source.data, e["type"]), e) for e in error.errors()]
    # A number, say, is fine as text where text is asked for: nobody quotes twice on a command line.
    as_text = [path for path, e in errors if e["type"] == "string_type" and source.use_raw_text(path)]
    if as_text:
        return _validate(schema, source)

    # Each alternative of a union reports its own error: leave those out that lost to a deeper one ...
    paths = {path for path, _ in errors}
    deeper = {path[:end] for path in paths for end in range(len(path))}
    grouped: dict[FieldPath, list[Any]] = {}
    for path, e in errors:
        if path not in deeper or e["type"] in ("missing", "value_error"):
            grouped.setdefault(path, []).append(e)
    # ... and print those of one field as one line.
    problems = [
        ("" if path else "the recipe: ")
        + source.told(path, describe_error(schema, path, group, source.where(path) == COMMAND_LINE))
        for path, group in grouped.items()
    ]
    for name, field in schema.__pydantic_fields__.items():  # type: ignore[attr-defined]
        sound = name in source.data and not any(path[:1] == (name,) for path in paths)
        if sound and sections_in(field.annotation):
            value = _parse(field.annotation, source.data[name])
            problems += _own_problems(value, (name,), source)
            problems += _problems_here(value, (name,), source) if name in _checked_here(schema) else []
    return None, problems


def _parse(schema: Any, data: Any) -> Any:
    # From JSON, because pydantic's strict mode takes lists for tuples and text for paths only there.
    return TypeAdapter(schema).validate_json(json.dumps(data), strict=True)


def _data_path(location: tuple[int | str, ...], data: Any, error_type: str) -> FieldPath:
    """Path in `data` of an error: its location without pydantic's names of union alternatives."""
    path: list[str | int] = []
    for position, key in enumerate(location):
        if (key in data) if isinstance(data, dict) else (isinstance(data, list) and key in range(len(data))):
            data = data[key]
        elif error_type != "missing" or position < len(location) - 1:
            continue
        path.append(key)
    return tuple(path)


def _own_problems(value: Any, path: FieldPath, source: Source, check: str = "problems") -> list[str]:
    """What the sections in `value` say of themselves, outermost first, with their path as prefix.

    Args:
        value: a section, or what may hold some.
        path: where it lies in the recipe.
        source: of the recipe.
        check: the sections' method to ask.
    """
    if isinstance(value, list | tuple):
        return [line for i, item in enumerate(value) for line in _own_problems(item, (*path, i), source, check)]
    if isinstance(value, dict):
        return [line for key, item in value.items() for line in _own_problems(item, (*path, key), source, check)]
    if not dataclasses.is_dataclass(value):
        return []
    lines = getattr(value, check)() if hasattr(value, check) else []
    found = [_placed(line, value, path, source) for line in lines]
    for field in dataclasses.fields(value):
        found += _own_problems(getattr(value, field.name), (*path, field.name), source, check)
    return found


def _checked_here(schema: type) -> tuple[str, ...]:
    return getattr(schema, "checked_here", ())


def _problems_here(value: Any, path: FieldPath, source: Source) -> list[str]:
    lines = value.problems_here() if hasattr(value, "problems_here") else []
    return [_placed(line, value, path, source) for line in lines]


def _placed(line: str, value: Any, path: FieldPath, source: Source) -> str:
    """What the section `value` at `path` says of itself, with the field's full name and its place in the source."""
    head, colon, problem = line.partition(": ")
    own = tuple(int(key) if key.isdecimal() else key for key in head.split("."))
    if colon and own[0] in {field.name for field in dataclasses.fields(value)}:
        return source.told((*path, *own), problem)
    return source.told(path, line)
