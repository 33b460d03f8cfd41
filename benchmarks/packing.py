"""Speed of packed rows against padded ones, on a recipe's own data and model, in one process.

    python benchmarks/packing.py --config RECIPE.yaml [--examples 12] [--output FILE] [--any.field value ...]

Whole training steps (forward, backward, AdamW) on the same examples, once as the Trainer batches them (random rows,
padded to the longest of their micro batch) and once packed, in turn. Every round has other examples. Absolute times
on a shared machine mean little, so the result is the ratio of neighboring steps, with its quartiles.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ratios import quartiles
from transformers import TrainingArguments

from trex_ds.comparison.results import without_places
from trex_ds.config import read_recipe, to_dict
from trex_ds.data.collator import Collator, PackedCollator
from trex_ds.data.datasets import PackedSet
from trex_ds.data.encoding import IGNORED_LABEL
from trex_ds.data.packing import plan_rows
from trex_ds.data.store import lengths
from trex_ds.environment import describe_environment
from trex_ds.files import write_json
from trex_ds.launching.process_group import start_distributed
from trex_ds.training.job import build_model
from trex_ds.training.prepared import prepare
from trex_ds.training.recipe import Recipe
from trex_ds.training.trainer import TRexTrainer

Batches = list[dict[str, torch.Tensor]]


def padded(items: Sequence[Any], pad: int, micro_batch: int) -> Batches:
    collate = Collator(pad)
    return [collate(items[i : i + micro_batch]) for i in range(0, len(items), micro_batch)]


def packed(items: Sequence[Any], pad: int, row_length: int, micro_batch: int, one_row: bool) -> Batches:
    """Micro batches of at most as many rows as padded ones have."""
    rows = PackedSet(items, plan_rows([len(item["input_ids"]) for item in items], row_length, seed=0))
    collate = PackedCollator(pad, one_row)
    return [
        collate([rows[r] for r in range(i, min(i + micro_batch, len(rows)))]) for i in range(0, len(rows), micro_batch)
    ]


def make_step(trainer: TRexTrainer) -> Callable[[Batches], float]:
    """A function that runs one optimizer step over micro batches and returns its seconds."""
    model = trainer.model
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4)

    def step(batches: Batches) -> float:
        answers = sum(int((batch["labels"] != IGNORED_LABEL).sum()) for batch in batches)
        start = time.perf_counter()
        for batch in batches:
            trainer.compute_loss(model, trainer._prepare_inputs(batch), num_items_in_batch=answers).backward()
        optimizer.step()
        optimizer.zero_grad()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter() - start

    return step


def measure(recipe: Recipe, num_examples: int, rounds: int) -> dict[str, Any]:
    device = start_distributed(recipe.training.timeout_minutes)
    recipe.data.packing = False  # rows are made here, both ways
    prepared = prepare(recipe, device)
    examples: Any = prepared.training_set
    pad = prepared.tokenizer.pad_token_id
    model = build_model(recipe, prepared.centroids, prepared.tasks).to(device).train()
    arguments = TrainingArguments(recipe.output_dir, use_cpu=device.type == "cpu", report_to="none")
    step = make_step(TRexTrainer(model=model, args=arguments))
    micro_batch, one_row = recipe.training.micro_batch_size, "flash" in recipe.model.attention
    ways: dict[str, Callable[[Sequence[Any]], Batches]] = {
        "padded": lambda items: padded(items, pad, micro_batch),
        "packed": lambda items: packed(items, pad, recipe.data.max_length, micro_batch, one_row),
    }
    order = np.random.default_rng(recipe.seed).permutation(len(examples))
    batches_of = [[examples[int(i)] for i in order[k * num_examples :][:num_examples]] for k in range(rounds + 1)]
    warm_up = batches_of.pop()[:micro_batch]
    for make in ways.values():
        step(make(warm_up))
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    real, shapes = [], {way: np.zeros(2, dtype=int) for way in ways}
    for round_, items in enumerate(batches_of):
        real.append(sum(len(item["input_ids"]) for item in items))
        for way in list(ways)[:: -1 if round_ % 2 else 1]:
            batches = ways[way](items)
            shapes[way] += sum(batch["input_ids"].numel() for batch in batches), len(batches)
            seconds[way].append(step(batches))
    speedups = [a / b for a, b in zip(seconds["padded"], seconds["packed"], strict=True)]
    whole = plan_rows(lengths(prepared.store.train), recipe.data.max_length, recipe.seed)
    return {
        "speedup_of_packing": quartiles(speedups),
        "all_training_examples": {"examples": len(whole.items), "rows": len(whole), "fill_rate": whole.fill_rate},
        "examples": {"mean_tokens": sum(real) / rounds / num_examples, "a_step": num_examples},
        **{
            way: {
                "real_tokens_per_second": statistics.median(n / s for n, s in zip(real, taken, strict=True)),
                "real_tokens_of_all": sum(real) / int(shapes[way][0]),
                "tokens_in_a_micro_batch": int(shapes[way][0]) / int(shapes[way][1]),
            }
            for way, taken in seconds.items()
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--examples", type=int, default=12, help="of one optimizer step")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/packing.json"))
    given, rest = parser.parse_known_args()
    recipe = read_recipe(Recipe, rest, __doc__ or "")
    result = {
        "what": "steps of one process on the same examples, padded and packed; one round gives one ratio",
        "recipe": without_places(to_dict(recipe)),
        **measure(recipe, given.examples, given.rounds),
        "environment": describe_environment(),
    }
    write_json(given.output, result)
    print(json.dumps({k: v for k, v in result.items() if k not in ("environment", "recipe")}, indent=1))


if __name__ == "__main__":
    main()
