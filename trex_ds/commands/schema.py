"""Print the JSON schema of a recipe, for editors.

Usage:
    trex-ds schema [train | compare | report | plan] [--output FILE]

An editor with a YAML language server completes and checks a recipe whose first line names the schema:
    # yaml-language-server: $schema=train.json

Examples:
    trex-ds schema > train.json
    trex-ds schema report --output report.json
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field
from importlib import import_module
from pathlib import Path
from typing import Any

from trex_ds.config import ConfigError, read_flags, section
from trex_ds.files import atomic_path
from trex_ds.wording import did_you_mean

RECIPE_CLASSES = {
    "train": ("trex_ds.training.recipe", "Recipe"),
    "compare": ("trex_ds.comparison.config", "CompareRecipe"),
    "report": ("trex_ds.reporting.config", "ReportRecipe"),
    "plan": ("trex_ds.planning.config", "PlannedRecipe"),
}


@section
class Options:
    """The schema that is wanted, and its file."""

    command: list[str] = field(default_factory=lambda: ["train"])
    """The command whose recipes are described."""
    output: Path | None = None
    """File for it; null: standard output."""

    def problems(self) -> list[str]:
        """No command with recipes of its own, or several."""
        if len(self.command) != 1:
            return [f"give one of {', '.join(RECIPE_CLASSES)}, got {' '.join(self.command)}"]
        if self.command[0] not in RECIPE_CLASSES:
            return [f"no schema of {self.command[0]!r}; {did_you_mean(self.command[0], list(RECIPE_CLASSES))}"]
        return []


def recipe_class(command: str) -> Any:
    """The class that a command's recipes are read into."""
    module, name = RECIPE_CLASSES[command]
    return getattr(import_module(module), name)


def main(argv: Sequence[str]) -> None:
    """Write the schema."""
    options = read_flags(Options, argv, __doc__, words="command")

    from trex_ds.recipe_json_schema import schema_text

    text = schema_text(recipe_class(options.command[0]))
    if options.output is None:
        print(text, end="")
        return
    try:
        with atomic_path(options.output) as temporary:
            temporary.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError([f"--output: {options.output} cannot be written: {error}"]) from None
