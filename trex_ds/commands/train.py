"""Train an adapter as a recipe says.

Usage:
    trex-ds train --config RECIPE [--any.field VALUE ...]

RECIPE is a YAML file, or the name of a recipe of this package (`trex-ds recipes` lists them). Any field of it can be
given on the command line too, where values are YAML.

Examples:
    trex-ds train --config quickstart
    trex-ds train --config my.yaml --adapter.method smora --training.max_steps 100
    deepspeed --num_gpus 8 --module trex_ds train --config my.yaml --output_dir runs/mine
"""

from __future__ import annotations

from collections.abc import Sequence

from trex_ds.config import read_recipe
from trex_ds.launching.processes import check_processes_fit


def main(argv: Sequence[str]) -> None:
    """Read the recipe and train."""
    from trex_ds.training.recipe import Recipe

    recipe = read_recipe(Recipe, argv, __doc__)
    check_processes_fit()

    from trex_ds.training.job import train

    train(recipe)
