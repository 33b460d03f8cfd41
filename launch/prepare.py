"""Prepare a recipe's data ahead: python launch/prepare.py --config RECIPE.yaml [--show N] [--any.field value ...].

Fetches, renders, tokenizes, embeds and clusters all that launch/train.py needs into the cache folder, and says
what each stage cost. --show N prints N training and N evaluation examples of each task as the model gets them.
"""

import argparse

from trex_ds.config import ConfigError, read_recipe, run_or_exit
from trex_ds.launching.processes import check_processes_fit


def main() -> None:
    check_processes_fit()
    # Only --show is taken here; the recipe's own reader has the rest, --help among it.
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--show", type=int, default=0)
    arguments, rest = parser.parse_known_args()
    if arguments.show < 0:
        raise ConfigError([f"--show: must be at least 0, got {arguments.show} (command line)"])

    from trex_ds.training.recipe import Recipe

    recipe = read_recipe(Recipe, rest, __doc__)

    from trex_ds.preparation.ahead import prepare_ahead

    prepare_ahead(recipe, arguments.show)


if __name__ == "__main__":
    run_or_exit(main)
