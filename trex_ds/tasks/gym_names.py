"""The tasks of reasoning-gym and their options, read from its files: importing it takes four seconds."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

_REGISTERED = re.compile(r"^register_dataset\(\s*([\w\"]+),\s*\w+,\s*(\w+)", re.MULTILINE)
_CONSTANT = re.compile(r'^([A-Z_]+) = "(\w+)"$', re.MULTILINE)


@dataclass(frozen=True)
class GymTask:
    """Place in reasoning-gym that defines a task."""

    file: Path
    settings: str
    """Name of the dataclass of its options."""

    def options(self) -> list[str]:
        """Names of its options, seed and size among them."""
        tree = ast.parse(self.file.read_text(encoding="utf-8"))
        (found,) = (node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == self.settings)
        fields = (node.target for node in found.body if isinstance(node, ast.AnnAssign))
        return [target.id for target in fields if isinstance(target, ast.Name)]


@cache
def gym_tasks() -> dict[str, GymTask]:
    """Every task by name; empty where reasoning-gym is not installed."""
    spec = find_spec("reasoning_gym")
    if spec is None or spec.origin is None:
        return {}
    found = {}
    for file in sorted(Path(spec.origin).parent.rglob("*.py")):
        text = file.read_text(encoding="utf-8")
        constants = dict(_CONSTANT.findall(text))
        for name, settings in _REGISTERED.findall(text):
            found[constants.get(name, name.strip('"'))] = GymTask(file, settings)
    return found
