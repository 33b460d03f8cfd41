"""Sources of a recipe's values: a YAML file and the overrides on the command line."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from trex_ds.packaged import RECIPES, not_found, recipe_file

FieldPath = tuple[str | int, ...]
COMMAND_LINE = "command line"
_PLAIN_TAGS = {f"tag:yaml.org,2002:{kind}" for kind in ("null", "bool", "int", "float", "str", "seq", "map")}


def dotted(path: FieldPath) -> str:
    """`("tasks", 0, "weight")` as `tasks.0.weight`."""
    return ".".join(map(str, path))


@dataclass
class Arguments:
    """A command line taken apart; `overrides` are (field, raw value) in the given order."""

    config: str | None = None
    help: bool = False
    overrides: list[tuple[str, str]] = field(default_factory=list)
    words: list[str] = field(default_factory=list)
    """What belongs to no option."""
    problems: list[str] = field(default_factory=list)


def parse_arguments(argv: Sequence[str], is_switch: Callable[[str], bool]) -> Arguments:
    """Take `--config FILE`, `--help`, and `--field value` or `--field=value` apart.

    Args:
        argv: the words of the command line.
        is_switch: whether a field is true or false. Its value may be left out, which means true.
    """
    arguments = Arguments()
    rest = list(argv)
    while rest:
        option = rest.pop(0)
        if option == "--":
            arguments.words += rest
            break
        if option in ("--help", "-h"):
            arguments.help = True
            continue
        name, has_value, value = option.removeprefix("--").partition("=")
        if not option.startswith("--") or not name:
            arguments.words.append(option)
            continue
        if not has_value and is_switch(name) and (not rest or rest[0].lower() not in ("true", "false", "null")):
            value = "true"
        elif not has_value:
            if not rest or rest[0].startswith("--"):
                arguments.problems.append(f"--{name}: needs a value, as --{name}=VALUE ({COMMAND_LINE})")
                continue
            value = rest.pop(0)
        if name == "config":
            arguments.config = value
        elif name not in ("local_rank", "local-rank"):
            arguments.overrides.append((name, value))
    return arguments


class _Loader(yaml.SafeLoader):
    """Scalars as in YAML 1.2: `1e-4` is a number; `no`, `on`, dates and `12:30` are text."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 (PyYAML's own name for it)


for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?(0|[1-9][0-9_]*)|0x[0-9a-fA-F]+", "-+0123456789"),
    (
        "float",
        r"[-+]?([0-9][0-9_]*\.[0-9]*([eE][-+]?[0-9]+)?|\.[0-9]+([eE][-+]?[0-9]+)?"
        r"|[0-9]+[eE][-+]?[0-9]+|\.(inf|Inf|INF))|\.(nan|NaN|NAN)",
        "-+.0123456789",
    ),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"(?:{_pattern})$"), list(_first))


def _load_yaml(text: str) -> tuple[Any, dict[FieldPath, int], list[tuple[int, str]]]:
    """Data, the line of every value, and (line, message) for every repeated or unusable key."""
    loader = _Loader(text)
    lines: dict[FieldPath, int] = {}
    problems: list[tuple[int, str]] = []

    def plain(node: yaml.Node, path: FieldPath) -> Any:
        line = lines.setdefault(path, node.start_mark.line + 1)
        if node.tag not in _PLAIN_TAGS:
            problems.append((line, f"{dotted(path) or 'the recipe'}: the YAML tag {node.tag} has no meaning here"))
            return None
        if isinstance(node, yaml.SequenceNode):
            return [plain(item, (*path, index)) for index, item in enumerate(node.value)]
        if not isinstance(node, yaml.MappingNode):
            return loader.construct_object(node)
        mapping: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            key = key_node.value
            if not isinstance(key_node, yaml.ScalarNode):
                problems.append((line, f"{dotted(path) or 'the recipe'}: a key must be a plain word"))
                continue
            if key in mapping:
                first = lines[(*path, key)]
                problems.append((line, f"{dotted((*path, key))}: given twice, first in line {first}"))
            lines[(*path, key)] = line
            mapping[key] = plain(value_node, (*path, key))
        return mapping

    try:
        root = loader.get_single_node()
        return (None if root is None else plain(root, ())), lines, problems
    finally:
        loader.dispose()


def _message(error: Exception) -> str:
    if isinstance(error, yaml.MarkedYAMLError):
        return ", ".join(part for part in (error.context, error.problem) if part)
    return str(error).splitlines()[0]


class Source:
    """A recipe's data with the place that each value came from.

    `data` is None if there is nothing to check: no file, or one that is not YAML. `problems` is
    what went wrong on the way; what the values mean is the schema's affair.
    """

    def __init__(self, arguments: Arguments, data: Any = None):
        """Read the file of `--config` and put the overrides in its place; with `data` they are put there, and no file.

        Args:
            arguments: the command line.
            data: values to start from where there is no file.
        """
        self.problems = list(arguments.problems)
        self.data = data
        self._file = COMMAND_LINE
        self._places: dict[FieldPath, str] = {}
        self._raw: dict[FieldPath, str] = {}
        if data is None and arguments.config is None:
            self.problems.append("--config: missing; give the recipe's YAML file, as --config FILE")
            return
        if data is None:
            self._read_file(arguments.config or "")
        if self.data is not None:
            for name, raw in arguments.overrides:
                self._override(name, raw)

    def where(self, path: FieldPath) -> str:
        """`file:line` or `command line` of the value at `path`, or of what it is missing in."""
        for end in range(len(path), -1, -1):
            if path[:end] in self._places:
                return self._places[path[:end]]
        return self._file

    def told(self, path: FieldPath, problem: str) -> str:
        """One line for a problem of the value at `path`: its name, as the user gave it, the problem and its place.

        Where the value comes from the file, other fields that the problem names may come from the command line, and
        be the cause: they are named too.
        """
        place = self.where(path)
        name = f"{dotted(path)}: " if path else ""
        if place == COMMAND_LINE:
            return f"{'--' if path else ''}{name}{problem} ({place})"
        given = [dotted(other) for other, origin in self._places.items() if origin == COMMAND_LINE]
        named = [f"--{other}" for other in given if re.search(rf"(?<![\w.-]){re.escape(other)}(?![\w.])", problem)]
        also = f"; {', '.join(named)}: {COMMAND_LINE}" if named else ""
        return f"{name}{problem} ({place}{also})"

    def use_raw_text(self, path: FieldPath) -> bool:
        """Replace an override's parsed value by its text (`2024` stays "2024"); False if it cannot be."""
        raw = self._raw.pop(path, None)
        if raw is None or raw[:1] in ("[", "{"):
            return False
        self._parent(path)[path[-1]] = raw
        return True

    def _read_file(self, named: str) -> None:
        file = recipe_file(named)
        self._file = str(file)
        try:
            text = file.read_text(encoding="utf-8")
        except FileNotFoundError:
            self.problems.append(f"--config: {not_found(named, RECIPES)}")
            return
        except (OSError, UnicodeDecodeError) as error:
            self.problems.append(f"--config: cannot read {file}: {error}")
            return
        try:
            data, lines, problems = _load_yaml(text)
        except (yaml.YAMLError, ValueError) as error:
            mark = getattr(error, "problem_mark", None)
            place = f"{file}:{mark.line + 1}:{mark.column + 1}" if mark else str(file)
            self.problems.append(f"{place}: not YAML: {_message(error)}")
            return
        except RecursionError:
            self.problems.append(f"{file}: nested too deeply, or an alias that contains itself")
            return
        self.data = {} if data is None else data
        self._places = {path: f"{file}:{line}" for path, line in lines.items()}
        self.problems += [f"{message} ({file}:{line})" for line, message in problems]

    def _override(self, name: str, raw: str) -> None:
        try:
            value, _, problems = _load_yaml(raw)
        except (yaml.YAMLError, ValueError) as error:
            if raw[:1] in ("[", "{"):
                self.problems.append(f"--{name}: not YAML: {_message(error)}, got {raw!r} ({COMMAND_LINE})")
                return
            value, problems = raw, []  # such as *.json, which YAML takes for an alias
        self.problems += [f"--{name}: {message} ({COMMAND_LINE})" for _, message in problems]
        path: FieldPath = ()
        container = self.data
        keys = name.split(".")
        for depth, key in enumerate(keys):
            last = depth == len(keys) - 1
            if isinstance(container, list):
                if not key.isdecimal() or int(key) >= len(container):
                    self.problems.append(
                        f"--{name}: {dotted(path)} is a list of {len(container)} items, numbered from 0; "
                        f"{key!r} is not one of them ({COMMAND_LINE})"
                    )
                    return
                path = (*path, int(key))
            elif isinstance(container, dict):
                path = (*path, key)
                if not last and container.get(key) is None:
                    if keys[depth + 1].isdecimal():
                        self.problems.append(
                            f"--{name}: the file has no list {dotted(path)}; "
                            f"give it whole, as --{dotted(path)} '[...]' ({COMMAND_LINE})"
                        )
                        return
                    container[key] = {}
            else:
                self.problems.append(f"--{name}: {dotted(path)} is a value, it has no fields ({COMMAND_LINE})")
                return
            if not last:
                container = container[path[-1]]
        container[path[-1]] = value
        # What lay below the replaced value came from elsewhere.
        self._places = {p: place for p, place in self._places.items() if p[: len(path)] != path}
        self._places[path] = COMMAND_LINE
        self._raw[path] = raw

    def _parent(self, path: FieldPath) -> Any:
        container = self.data
        for key in path[:-1]:
            container = container[key]
        return container
