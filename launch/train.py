"""Train a T-REX adapter: deepspeed launch/train.py --config RECIPE.yaml [--any.field value ...]."""

import sys

from trex_ds.config import read_recipe, run_or_exit
from trex_ds.launching.processes import check_processes_fit


def main() -> None:
    check_processes_fit()
    from trex_ds.training.recipe import Recipe

    recipe = read_recipe(Recipe, sys.argv[1:], __doc__)

    from trex_ds.training.job import train

    train(recipe)


if __name__ == "__main__":
    run_or_exit(main)
