"""How often ZeRO-3 gathers in a training step, by what it fetches ahead and what it keeps whole on every rank.

    deepspeed --num_accelerators 2 benchmarks/gathers.py [--rounds 2] [--output FILE]

SmolLM2-135M with T-REX(4, 8) on all linears, in bfloat16 and in nf4, under the configurations of ds_configs/
and under changes of them. Steps of all take turns in one process group; a round gives a ratio to the first.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import deepspeed
import torch
from peft import get_peft_model
from ratios import quartiles
from transformers.integrations import HfDeepSpeedConfig

from trex_ds import TRexConfig
from trex_ds.distributed import rank
from trex_ds.environment import describe_environment
from trex_ds.files import write_json
from trex_ds.launching.process_group import start_distributed
from trex_ds.modeling.base import load_base_model
from trex_ds.modeling.config import ModelConfig
from trex_ds.quiet import quiet_libraries

SEED = 0
CONFIGS = {None: "ds_configs/zero3_bf16.json", "nf4": "ds_configs/zero3_4bit.json"}
FETCH_NOTHING_AHEAD = {"stage3_prefetch_bucket_size": 0}
LARGEST_ADAPTER_TENSOR = 32 * 1536  # the router of down_proj: I*J pairs by its input
KEEP_ADAPTERS_WHOLE = {"stage3_param_persistence_threshold": LARGEST_ADAPTER_TENSOR}
SETTINGS: dict[str, dict[str, int]] = {
    "as in ds_configs": {},
    "adapters whole": KEEP_ADAPTERS_WHOLE,
    "nothing fetched ahead": FETCH_NOTHING_AHEAD,
    "nothing fetched ahead, adapters whole": FETCH_NOTHING_AHEAD | KEEP_ADAPTERS_WHOLE,
}


def make_step(
    quantization: str | None, changes: dict[str, int], device: torch.device
) -> tuple[Callable[[], None], dict[str, Any]]:
    """A function that runs a training step, and what is kept whole."""
    config = json.loads(Path(CONFIGS[quantization]).read_text(encoding="utf-8"))
    config = {k: v for k, v in config.items() if v != "auto" and k != "optimizer"}
    config["train_micro_batch_size_per_gpu"] = 4
    config["zero_optimization"] |= changes
    torch.manual_seed(SEED)
    alive = HfDeepSpeedConfig(config)
    model = get_peft_model(load_base_model(ModelConfig(quantization=quantization)), TRexConfig())
    del alive
    trained = [p for p in model.parameters() if p.requires_grad]
    for parameter in trained:
        parameter.data = parameter.data.to(torch.bfloat16)
    optimizer = torch.optim.AdamW(trained, lr=1e-4)
    engine = deepspeed.initialize(model=model, optimizer=optimizer, config=config)[0]
    ids = torch.randint(0, 40_000, (4, 128), device=device)
    scores = torch.randn(4, 32, device=device)

    def step() -> None:
        engine.backward(engine(input_ids=ids, labels=ids, intuition=scores).loss)
        engine.step()

    kept = sum(p.ds_numel for p in model.parameters() if p.ds_persist)
    return step, {"changes": changes, "elements_whole_on_every_rank": kept}


def collectives(step: Callable[[], None]) -> dict[str, dict[str, int]]:
    """Calls and bytes of one step, by kind."""
    logger = deepspeed.comm.comm.comms_logger
    logger.reset_data()
    deepspeed.comm.configure(enabled=True, prof_all=True)
    step()
    deepspeed.comm.configure(enabled=False)
    return {
        name: {
            "calls": sum(found[0] for found in sizes.values()),
            "bytes": sum(size * found[0] for size, found in sizes.items()),
        }
        for name, sizes in logger.get_raw_data().items()
    }


def timed(step: Callable[[], None]) -> float:
    torch.distributed.barrier()
    start = time.perf_counter()
    step()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def measure(quantization: str | None, rounds: int, device: torch.device) -> dict[str, Any]:
    steps, results = {}, {}
    for name, changes in SETTINGS.items():
        steps[name], results[name] = make_step(quantization, changes, device)
    for name, step in steps.items():
        for _ in range(2):  # DeepSpeed records the order of the parameters in the first step
            step()
        results[name]["collectives"] = collectives(step)
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for round_ in range(rounds):
        for name in list(steps)[:: -1 if round_ % 2 else 1]:
            seconds[name].append(timed(steps[name]))
    ours = seconds["as in ds_configs"]
    for name, taken in seconds.items():
        results[name]["time_ratio"] = quartiles([b / a for a, b in zip(ours, taken, strict=True)])
        results[name]["median_seconds"] = statistics.median(taken)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/gathers.json"))
    parser.add_argument("--local_rank")
    given = parser.parse_args()
    quiet_libraries()
    device = start_distributed(5)
    result = {
        "what": "a training step of 4 rows of 128 tokens on each rank, T-REX(4, 8) on all linears of SmolLM2-135M",
        "seed": SEED,
        "bfloat16": measure(None, given.rounds, device),
        "nf4": measure("nf4", given.rounds, device),
        "environment": describe_environment(),
    }
    if rank() == 0:
        write_json(given.output, result)
        print(json.dumps({k: v for k, v in result.items() if k != "environment"}, indent=1))


if __name__ == "__main__":
    main()
