"""Train a T-REX adapter: deepspeed launch/train.py --config RECIPE.yaml [--any.field value ...]."""

import sys

from trex_ds.config import read_recipe, run_or_exit


def main() -> None:
    from trex_ds.training.recipe import Recipe

    recipe = read_recipe(Recipe, sys.argv[1:], __doc__)

    from trex_ds.training.job import train

    train(recipe)


if __name__ == "__main__":
    run_or_exit(main)
