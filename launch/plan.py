"""Plan a recipe for a machine: python launch/plan.py --config RECIPE.yaml --gpus 8 --gpu_memory 80 [--nodes 2] ...

Says what each rank would hold and send, which DeepSpeed configuration and micro batch fit, and which of them
would be fastest, from the model's configuration alone. --help names the machine's fields and what is assumed.
"""

import sys

from trex_ds.config import read_recipe, run_or_exit


def main() -> None:
    from trex_ds.planning.config import PlannedRecipe

    recipe = read_recipe(PlannedRecipe, sys.argv[1:], __doc__ or "")

    from trex_ds.planning.run import run

    run(recipe)


if __name__ == "__main__":
    run_or_exit(main)
