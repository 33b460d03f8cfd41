"""Plans beside what ranks really hold and send: on one rank and on several, each with a command of its own.

    python benchmarks/planning.py [--small]
    deepspeed --num_accelerators 2 benchmarks/planning.py

Trains a few steps of noise in each case and counts the last one tensor by tensor, so a rank's load and a shared
machine change nothing. The results of each number of ranks are kept beside each other in one file, with sizes in bytes.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import torch.distributed as dist
from measured_bytes import measure
from predicted_bytes import predict
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.integrations.deepspeed import unset_hf_deepspeed_config

from trex_ds.config import read_recipe
from trex_ds.distributed import on_rank_zero, rank, world_size
from trex_ds.environment import describe_environment
from trex_ds.files import write_json
from trex_ds.launching.process_group import start_distributed
from trex_ds.quiet import quiet_libraries
from trex_ds.training.recipe import Recipe

QUICKSTART = "launch/recipes/quickstart.yaml"
SMOLLM2 = "SmolLM2-135M"
ROW, ANSWERS, MICRO_BATCH = 128, 32, 2
BF16, FLOAT32 = "ds_configs/zero3_bf16.json", "ds_configs/zero3_fp32_cpu.json"
FOUR_BITS = "ds_configs/zero3_4bit.json"
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "ZeRO-2": ("ds_configs/zero2_bf16.json", {}),
    "ZeRO-3": (BF16, {}),
    "ZeRO-3, checkpointing": (BF16, {"training.gradient_checkpointing": True}),
    "ZeRO-3, 2 passes a step": (BF16, {"training.gradient_accumulation_steps": 2}),
    "ZeRO-3, float32": (FLOAT32, {"model.dtype": "float32"}),
    "ZeRO-3, 4 bits": (FOUR_BITS, {"model.quantization": "nf4"}),
    "ZeRO-3, 4 bits, checkpointing": (
        FOUR_BITS,
        {"model.quantization": "nf4", "training.gradient_checkpointing": True},
    ),
    "ZeRO-2, 4 bits": ("ds_configs/zero2_bf16.json", {"model.quantization": "nf4"}),
}


def recipe(model: str, deepspeed: str, more: dict[str, Any], output: str) -> Recipe:
    given = {
        "output_dir": output,
        "data.max_length": ROW,
        "training.micro_batch_size": MICRO_BATCH,
        "training.deepspeed": deepspeed,
        **({} if model == SMOLLM2 else {"model.name": model}),
        **more,
    }
    overrides = [text for name, value in given.items() for text in (f"--{name}", json.dumps(value))]
    return read_recipe(Recipe, ["--config", QUICKSTART, *overrides], "")


def small_llama(folder: Path) -> str:
    """Four layers of width 256, random: small enough for thresholds to matter in other ways than for SmolLM2."""
    config = LlamaConfig(
        vocab_size=4096,
        hidden_size=256,
        intermediate_size=704,
        num_hidden_layers=4,
        num_attention_heads=8,
        num_key_value_heads=4,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return str(folder)


def most_of_a_rank(own: dict[str, int]) -> dict[str, int]:
    everyone: list[Any] = [None] * world_size()
    dist.all_gather_object(everyone, own)
    return {part: max(counted[part] for counted in everyone) for part in own}


def table(done: dict[str, Any]) -> str:
    """Markdown: MB as predicted, and behind it as measured where that reads otherwise."""
    parts = ("base", "adapter", "optimizer", "gradients", "saved", "peak of a pass", "gather bytes", "gathers")
    lines = ["| case | " + " | ".join(parts) + " |", "| --- " * (len(parts) + 1) + "|"]
    for case in done["measured"]:
        cells = []
        for part in parts:
            scale = 1 if part == "gathers" else 1e6
            ours, real = (f"{done[which][case][part] / scale:,.4g}" for which in ("predicted", "measured"))
            cells.append(ours if ours == real else f"{ours} ({real})")
        lines.append(f"| {case} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/planning.json"))
    parser.add_argument("--small", action="store_true", help="without SmolLM2, which takes minutes")
    parser.add_argument("--predict", action="store_true", help="only predict again what the file has measurements of")
    parser.add_argument("--local_rank", help="of the launcher")
    given = parser.parse_args()
    quiet_libraries()
    start_distributed(timeout_minutes=10)
    with tempfile.TemporaryDirectory() as temporary:
        llama = on_rank_zero(lambda: small_llama(Path(temporary) / "llama"))
        cases = {
            f"{name}, {case}": (model, deepspeed, more, f"{temporary}/run")
            for name, model in (("small Llama", llama), (SMOLLM2, SMOLLM2))
            for case, (deepspeed, more) in CASES.items()
            if not (given.small and name == SMOLLM2)
        }
        kept = json.loads(given.output.read_text(encoding="utf-8")) if given.output.is_file() else {}
        if not given.predict:
            measured = {case: most_of_a_rank(measure(recipe(*described), ANSWERS)) for case, described in cases.items()}
            kept[str(world_size())] = {"measured": measured, "seed": 0, "environment": describe_environment()}
        # Afterwards and on one rank: modules that a plan registers with DeepSpeed would number the others' differently.
        if rank() == 0:
            unset_hf_deepspeed_config()
            for ranks in kept if given.predict else [str(world_size())]:
                done = kept[ranks]
                done["predicted"] = {
                    case: predict(recipe(*cases[case]), ANSWERS, int(ranks)) for case in done["measured"]
                }
                done["predicted_with"] = describe_environment()
                print(f"{ranks} ranks\n{table(done)}")
            write_json(given.output, kept)
        dist.barrier()


if __name__ == "__main__":
    main()
