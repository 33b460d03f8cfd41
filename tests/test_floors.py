"""The package is built in floors: an import goes down, or to a neighbor in its own room, and never in a circle."""

from __future__ import annotations

import ast
import graphlib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "trex_ds"

# From the ground up; a name is a module or a room (a subpackage) of trex_ds.
FLOORS = (
    (
        "version",
        "wording",
        "files",
        "quiet",
        "console",
        "progress",
        "tables",
        "intervals",
        "seeding",
        "packaged",
        "protocols",
    ),
    (
        "recipe_source",
        "recipe_schema",
        "recipe_help",
        "recipe_json_schema",
        "config",
        "distributed",
        "bf16_matmul",
        "environment",
    ),
    ("launching", "tracking", "methods", "tasks", "adapter_folder"),
    ("modeling", "intuition", "data"),
    ("adapters",),
    ("evaluation",),
    ("training", "preparation"),
    ("answering", "comparison", "planning", "reporting", "lm_evaluation"),
    ("commands",),
    ("__main__",),
)
FLOOR = {name: number for number, names in enumerate(FLOORS) for name in names}


def modules() -> dict[str, Path]:
    found = {}
    for file in sorted(PACKAGE.rglob("*.py")):
        parts = file.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    del found[""]  # the package's own, which names on demand what users import from it
    return found


MODULES = modules()


def imported(file: Path) -> Iterator[str]:
    """Names of the package's modules that a file imports, wherever in it, for types alone too."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "trex_ds":
            assert node.level == 0
            module = (node.module or "").partition(".")[2]
            for alias in node.names:
                name = f"{module}.{alias.name}".strip(".")
                yield name if name in MODULES else module
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[2] for alias in node.names if alias.name.startswith("trex_ds."))


def room(module: str) -> str:
    return module.partition(".")[0]


def test_every_room_has_a_floor():
    assert {room(module) for module in MODULES} == FLOOR.keys()


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_down_or_to_a_neighbor_in_the_room(module):
    wrong = [
        other
        for other in imported(MODULES[module])
        if other and room(other) != room(module) and FLOOR[room(other)] > FLOOR[room(module)]
    ]
    assert wrong == []


def test_there_is_no_circle():
    graph = {module: {other for other in imported(file) if other} for module, file in MODULES.items()}
    graphlib.TopologicalSorter(graph).prepare()  # CycleError names the circle
    rooms = defaultdict(set)
    for module, others in graph.items():
        rooms[room(module)] |= {room(other) for other in others} - {room(module)}
    graphlib.TopologicalSorter(rooms).prepare()
