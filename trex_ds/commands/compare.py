"""Compare methods over seeds, each with a learning rate of its own.

Usage:
    trex-ds compare --config RECIPE [--any.field VALUE ...]

RECIPE is a YAML file, or the name of a recipe of this package (`trex-ds recipes` lists them). An interrupted
comparison goes on where it stopped when it is started again. The exit code is 1 if a run failed.

Examples:
    trex-ds compare --config compare_quickstart
    deepspeed --num_gpus 8 --module trex_ds compare --config my.yaml --seeds '[0, 1, 2, 3, 4]'
"""

from __future__ import annotations

from collections.abc import Sequence

from trex_ds.config import read_recipe
from trex_ds.launching.processes import check_processes_fit


def main(argv: Sequence[str]) -> int:
    """Read the recipe and compare; 1 on rank 0 if a run failed."""
    from trex_ds.comparison.config import CompareRecipe

    recipe = read_recipe(CompareRecipe, argv, __doc__)
    check_processes_fit()

    from trex_ds.comparison.compare import compare
    from trex_ds.distributed import rank

    # On rank 0 alone, because a launcher ends all ranks as soon as one has failed.
    return 1 if compare(recipe).failed and rank() == 0 else 0
