"""Report whether the claims of the T-REX paper hold for a recipe's model and data.

Usage:
    trex-ds report --config RECIPE [--check] [--comparison FILE] [--any.field VALUE ...]

Counts parameters, times training steps against LoRA, and judges each claim of the paper. With --comparison, the
comparison.json of `trex-ds compare`, the accuracies are among them. With --check the exit code is 1 if a claim does
not hold.

Examples:
    trex-ds report --config quickstart --output_dir runs/report
    deepspeed --num_gpus 8 --module trex_ds report --config my.yaml --comparison runs/compare/comparison.json --check
"""

from __future__ import annotations

from collections.abc import Sequence

from trex_ds.config import read_recipe
from trex_ds.launching.processes import check_processes_fit


def main(argv: Sequence[str]) -> int:
    """Read the recipe and report; with `check`, 1 on rank 0 if a claim does not hold."""
    from trex_ds.reporting.config import ReportRecipe

    recipe = read_recipe(ReportRecipe, argv, __doc__)
    check_processes_fit()

    from trex_ds.reporting.run import check, run

    report = run(recipe)
    return check(report) if recipe.check else 0
