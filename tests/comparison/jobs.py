"""Comparisons in small: variants of the adapter as methods, on the tiny jobs of tests/training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from tests.training.jobs import write_recipe

SMALL = {"num_in_experts": 2, "num_out_experts": 3, "num_clusters": 6, "intuition_transform": "centered"}
LARGE = SMALL | {"num_in_experts": 3, "num_out_experts": 4, "num_clusters": 12}


def write_comparison(folder: Path, **overrides: Any) -> Path:
    """A comparison of two methods and two seeds; `overrides` are by dotted name, dots as `__`."""
    values = {"methods": {"small": dict(SMALL), "large": dict(LARGE)}, "seeds": [0, 1], "evaluation__every": None}
    file = write_recipe(folder, output_dir=str(folder / "comparison"), **(values | overrides))
    recipe = yaml.safe_load(file.read_text())
    del recipe["adapter"]
    file.write_text(yaml.safe_dump(recipe))
    return file


def run_comparison(file: Path, *options: str) -> dict[str, Any]:
    """Run it in this process; the content of comparison.json."""
    from trex_ds.comparison.compare import compare
    from trex_ds.comparison.config import CompareRecipe
    from trex_ds.config import read_recipe

    recipe = read_recipe(CompareRecipe, ["--config", str(file), *options], "")
    compare(recipe)
    return json.loads((Path(recipe.output_dir) / "comparison.json").read_text())
