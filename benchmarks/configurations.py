"""GiB of each GPU under the files of ds_configs, for LLaMA-2 models: plans of launch/plan.py, not measurements.

    python benchmarks/configurations.py [--gpus 8] [--output FILE]

T-REX(4, 8) on all linears, rows of 2048 tokens, one a micro batch, gradient checkpointing.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from transformers import LlamaConfig

from trex_ds.config import read_recipe
from trex_ds.environment import describe_environment
from trex_ds.files import write_json
from trex_ds.planning.candidates import GIB, Planner
from trex_ds.planning.config import PlannedRecipe
from trex_ds.planning.settings import read_settings

MODELS = {
    "7B": LlamaConfig(hidden_size=4096, intermediate_size=11008, num_hidden_layers=32, num_attention_heads=32),
    "13B": LlamaConfig(hidden_size=5120, intermediate_size=13824, num_hidden_layers=40, num_attention_heads=40),
    "70B": LlamaConfig(
        hidden_size=8192,
        intermediate_size=28672,
        num_hidden_layers=80,
        num_attention_heads=64,
        num_key_value_heads=8,
    ),
}
CONFIGURATIONS = {
    "zero2_bf16.json": None,
    "zero3_bf16.json": None,
    "zero3_4bit.json": "nf4",
    "zero3_offload_bf16.json": None,
    "zero3_nvme_bf16.json": None,
}


def plans(config: LlamaConfig, gpus: int) -> dict[str, dict[str, Any]]:
    """Needs by DeepSpeed file: GiB of a GPU and of a rank's part of the CPU's memory and disk, GB sent by a rank."""
    with tempfile.TemporaryDirectory() as folder:
        config.save_pretrained(folder)
        settings = ["--config", "launch/recipes/quickstart.yaml", "--model.name", folder, "--data.max_length", "2048"]
        planners = {
            quantization: Planner(
                read_recipe(
                    PlannedRecipe, [*settings, "--model.quantization", quantization, "--gpus", str(gpus)], __doc__ or ""
                )
            )
            for quantization in ("null", "nf4")
        }
        found = {}
        for file, quantization in CONFIGURATIONS.items():
            planner = planners[quantization or "null"]
            one = planner.candidate(read_settings(f"ds_configs/{file}", planner.model), True, 1)
            found[file] = {
                "quantization": quantization,
                "gpu_gib": one.memory.peak / GIB + planner.recipe.assumptions.cuda_memory,
                "cpu_gib": sum(one.memory.cpu.values()) / GIB,
                "disk_gib": sum(one.memory.nvme.values()) / GIB,
                "sent_gb": (one.traffic.gather_bytes + one.traffic.reduce_bytes + one.traffic.step_bytes) / 1e9,
            }
        return found


def main() -> None:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--gpus", type=int, default=8)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/configurations.json"))
    given = parser.parse_args()
    result = {
        "what": "plans of T-REX(4, 8), rows of 2048 tokens, micro batch 1, checkpointing; GiB of each rank",
        "gpus": given.gpus,
        "models": {name: plans(config, given.gpus) for name, config in MODELS.items()},
        "environment": describe_environment(),
    }
    write_json(given.output, result)
    print("| file | " + " | ".join(MODELS) + " |")
    for file in CONFIGURATIONS:
        sizes = [result["models"][name][file] for name in MODELS]
        print(f"| {file} | " + " | ".join(f"{one['gpu_gib']:.1f}" for one in sizes) + " |")


if __name__ == "__main__":
    main()
