"""Compare methods over seeds: deepspeed launch/compare.py --config COMPARISON.yaml [--any.field value ...]."""

import sys

from trex_ds.config import read_recipe, run_or_exit
from trex_ds.launching.processes import check_processes_fit


def main() -> None:
    check_processes_fit()
    from trex_ds.comparison.config import CompareRecipe

    recipe = read_recipe(CompareRecipe, sys.argv[1:], __doc__)

    from trex_ds.comparison.compare import compare
    from trex_ds.distributed import rank

    if compare(recipe).failed and rank() == 0:  # alone, because a launcher ends all as soon as one fails
        sys.exit(1)


if __name__ == "__main__":
    run_or_exit(main)
