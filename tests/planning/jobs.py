"""Small recipes to plan and to measure."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.training.jobs import ZERO3, write_recipe
from trex_ds.config import read_recipe
from trex_ds.planning.config import PlannedRecipe
from trex_ds.training.recipe import Recipe

SMALL_BUCKETS = {"overlap_comm": False, "reduce_bucket_size": 100_000, "allgather_bucket_size": 100_000}


def write_case(folder: Path, name: str, zero: dict[str, Any], bf16: bool, **overrides: Any) -> list[str]:
    """The arguments of a recipe of its own DeepSpeed configuration, `folder`/`name`.json."""
    config = {
        **ZERO3,
        "zero_force_ds_cpu_optimizer": False,
        "bf16": {"enabled": bf16},
        "zero_optimization": SMALL_BUCKETS | zero,
    }
    file = folder / f"{name}.json"
    file.write_text(json.dumps(config))
    recipe = write_recipe(
        folder,
        output_dir=str(folder / name),
        model__dtype="bfloat16" if bf16 else "float32",
        training__deepspeed=str(file),
        **overrides,
    )
    return ["--config", str(recipe)]


def measure_all(cases: dict[str, list[str]], answers: int) -> dict[str, dict[str, int]]:
    """Measure, on one rank, what each case holds and sends."""
    from benchmarks.measured_bytes import measure
    from trex_ds import bf16_matmul

    # Plans are of machines that multiply bfloat16; others keep float32 copies for attention's backward.
    vars(bf16_matmul)["cpu_lacks_bfloat16"] = lambda: False
    return {name: measure(read_recipe(Recipe, argv, ""), answers) for name, argv in cases.items()}


def planned_recipe(folder: Path, **overrides: Any) -> PlannedRecipe:
    """A small recipe, its tiny model and a machine; overrides as for `write_recipe`."""
    return read_recipe(PlannedRecipe, ["--config", str(write_recipe(folder, **overrides))], "")
