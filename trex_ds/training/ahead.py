"""The job behind trex-ds prepare: the data of a training job, made before it starts."""

from __future__ import annotations

import logging
from dataclasses import asdict
from pathlib import Path

from trex_ds.console import console
from trex_ds.distributed import rank
from trex_ds.environment import describe_environment
from trex_ds.files import write_json
from trex_ds.preparation.showing import show
from trex_ds.tables import Table
from trex_ds.training.launched import launched
from trex_ds.training.prepared import Prepared, prepare
from trex_ds.training.recipe import Recipe

log = logging.getLogger(__name__)

REPORT_FILE = "preparation.json"


def prepare_ahead(recipe: Recipe, num_shown: int) -> Prepared:
    """Fill the cache folder with the data of `recipe`, and the hub's cache with its model; all ranks call it.

    Writes what each stage cost to `recipe.output_dir`/preparation.json. Prints `num_shown` examples of
    each task and split.

    Raises:
        ConfigError: the tasks, their data or the embedder cannot be used.
    """
    with launched(recipe) as device:
        prepared = prepare(recipe, device)
        if rank() == 0:
            if num_shown:
                _show(prepared, num_shown)
            _report(prepared, Path(recipe.output_dir), recipe.data.cache_path())
    return prepared


def _show(prepared: Prepared, count: int) -> None:
    store = prepared.store
    evaluation = store.evaluation.data.column("task").to_pylist()
    for name in store.counts:
        own = [i for i, task in enumerate(evaluation) if task == name]
        for split, positions in (("train", store.positions(name)), ("evaluation", own)):
            examples = [store.example(split, position)[0] for position in positions[:count]]  # type: ignore[arg-type]
            print(f"=== {name}, {split}: {len(positions)} examples\n{show(examples, count)}")


def _report(prepared: Prepared, output: Path, cache: Path) -> None:
    rows = []
    for stage in prepared.stages:
        rate = f"{stage.items / stage.seconds:,.0f}" if stage.made else "in the cache"
        rows.append([stage.name, f"{stage.items:,}", f"{stage.seconds:.1f}", rate, f"{stage.peak_mib:,.0f} MiB"])
    out = console()
    out.print(Table("Preparation", ["stage", "items", "seconds", "items/s", "peak memory"], rows))
    out.print(f"cache: {cache}")
    output.mkdir(parents=True, exist_ok=True)
    content = {"stages": [asdict(stage) for stage in prepared.stages], "environment": describe_environment()}
    write_json(output / REPORT_FILE, content)
