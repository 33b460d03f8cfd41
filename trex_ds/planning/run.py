"""The command: plan, print, and write if asked to."""

from __future__ import annotations

from pathlib import Path

from trex_ds.planning.candidates import Planner
from trex_ds.planning.config import PlannedRecipe
from trex_ds.planning.report import plan, print_plan, save_plan


def run(recipe: PlannedRecipe) -> None:
    """Plan `recipe` and print what was found.

    Raises:
        ConfigError: for a model or a DeepSpeed configuration that cannot be planned.
    """
    made = plan(Planner(recipe))
    print_plan(made)
    if recipe.output is not None:
        save_plan(made, Path(recipe.output))
