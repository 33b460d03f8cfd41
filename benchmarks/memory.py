"""What each rank holds of SmolLM2-135M with T-REX(4, 8) on 1, 2 and 4 ranks, by role: from runs.

    python benchmarks/memory.py [--ranks 1,2,4] [--output FILE]

Each run is the quickstart's job, shortened to two steps on one task. They are started here and not by
launch/train.py, which refuses more processes than there are CPU cores; there is no timing to spoil.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from trex_ds.environment import describe_environment
from trex_ds.files import write_json

RECIPE = "launch/recipes/quickstart.yaml"
SETTINGS = {
    "bf16, ZeRO-2": ["--training.deepspeed", "ds_configs/zero2_bf16.json"],
    "bf16, ZeRO-3": ["--training.deepspeed", "ds_configs/zero3_bf16.json"],
    "nf4, ZeRO-3": ["--training.deepspeed", "ds_configs/zero3_4bit.json", "--model.quantization", "nf4"],
}
SHORT = {
    "tasks": '[{source: "gym:letter_counting", train_examples: 60, evaluation_examples: 4}]',
    "training.max_steps": "2",
    "training.micro_batch_size": "2",
    "evaluation.max_new_tokens": "2",
    "evaluation.gather_weights": "false",
}


def run(setting: list[str], ranks: int) -> dict[str, Any]:
    """The memory.json of a job."""
    with tempfile.TemporaryDirectory() as folder:
        short = [word for name, value in SHORT.items() for word in (f"--{name}", value)]
        places = ["--output_dir", f"{folder}/run", "--tracking.uri", f"sqlite:///{folder}/mlflow.db"]
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(ranks)]
        command += [__file__, "--job", "--config", RECIPE, *short, *setting, *places]
        subprocess.run(command, check=True)
        return json.loads((Path(folder) / "run" / "memory.json").read_text(encoding="utf-8"))


def job(arguments: list[str]) -> None:
    from trex_ds.config import read_recipe
    from trex_ds.training.job import train
    from trex_ds.training.recipe import Recipe

    train(read_recipe(Recipe, arguments, __doc__ or ""))


def main() -> None:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--ranks", type=lambda text: [int(part) for part in text.split(",")], default=[1, 2, 4])
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/memory.json"))
    given = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    runs = {name: {str(ranks): run(setting, ranks) for ranks in given.ranks} for name, setting in SETTINGS.items()}
    for name, by_ranks in runs.items():
        for ranks, record in by_ranks.items():
            record.pop("environment")
            for held in (held for moment in record.values() for held in moment):
                held.pop("host")
            step = record["after the first step"]
            print(
                name,
                f"{ranks} ranks, most of a rank:",
                {
                    "base": max(held["roles"]["base"]["held_bytes"] for held in step),
                    "optimizer": max(held["optimizer_bytes"] for held in step),
                    "peak": max(held["peak_bytes"] for held in step),
                },
            )
    result = {
        "what": "the quickstart's job, shortened to two steps on one task; bytes",
        "seed": 0,
        "runs": runs,
        "environment": describe_environment(),
    }
    write_json(given.output, result)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--job"]:
        job(sys.argv[2:])
    else:
        main()
