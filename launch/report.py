"""Report whether the method's claims hold: deepspeed launch/report.py --config RECIPE.yaml [--any.field value ...].

Counts parameters, times training steps against LoRA, and judges each claim of the paper. With --comparison FILE
the accuracies of launch/compare.py are among them. With --check the exit code is 1 if a claim does not hold.
"""

import sys

from trex_ds.config import read_recipe, run_or_exit
from trex_ds.launching.processes import check_processes_fit


def main() -> None:
    check_processes_fit()
    from trex_ds.reporting.config import ReportRecipe

    arguments = [argument for argument in sys.argv[1:] if argument != "--check"]
    recipe = read_recipe(ReportRecipe, arguments, __doc__ or "")

    from trex_ds.reporting.run import check, run

    report = run(recipe)
    if "--check" in sys.argv:
        sys.exit(check(report))


if __name__ == "__main__":
    run_or_exit(main)
