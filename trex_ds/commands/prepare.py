"""Prepare a recipe's data and models ahead of its training.

Usage:
    trex-ds prepare --config RECIPE [--show N] [--any.field VALUE ...]

Fetches, renders, tokenizes, embeds and clusters all that `trex-ds train` needs into the cache folder, and says what
each stage cost. --show N prints N training and N evaluation examples of each task as the model gets them.

Examples:
    trex-ds prepare --config quickstart --show 2
    deepspeed --num_gpus 8 --module trex_ds prepare --config my.yaml
"""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import NonNegativeInt

from trex_ds.config import read_recipe, section
from trex_ds.launching.processes import check_processes_fit
from trex_ds.training.recipe import Recipe


@section
class PreparedRecipe(Recipe):
    """A training recipe whose data is prepared."""

    show: NonNegativeInt = 0
    """Examples of each task and split to print."""


def main(argv: Sequence[str]) -> None:
    """Read the recipe and prepare."""
    recipe = read_recipe(PreparedRecipe, argv, __doc__)
    check_processes_fit()

    from trex_ds.training.ahead import prepare_ahead

    prepare_ahead(recipe, recipe.show)
