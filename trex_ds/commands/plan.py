"""Plan the memory and the speed of a recipe on a machine that need not be there.

Usage:
    trex-ds plan --config RECIPE [--gpus N] [--gpu_memory GIB] [--nodes N] [--output FILE] [--any.field VALUE ...]

Says what each process would hold and send, which DeepSpeed configuration and micro batch fit, and which of them would
be fastest, from the model's configuration alone.

Examples:
    trex-ds plan --config quickstart --gpus 1 --gpu_memory 24
    trex-ds plan --config my.yaml --gpus 8 --gpu_memory 80 --nodes 2 --output plan.json
"""

from __future__ import annotations

from collections.abc import Sequence

from trex_ds.config import read_recipe


def main(argv: Sequence[str]) -> None:
    """Read the recipe and plan."""
    from trex_ds.planning.config import PlannedRecipe

    recipe = read_recipe(PlannedRecipe, argv, __doc__)

    from trex_ds.planning.run import run

    run(recipe)
