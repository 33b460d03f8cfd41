"""Speed of packed rows against padded ones: python benchmarks/packing.py --output benchmarks/results/packing.json.

Whole training steps (forward, backward, AdamW) of T-REX on the same examples, once as the Trainer batches them
(random rows, padded to the longest of their micro batch) and once packed, in turn in one process. Every round has
other examples. Absolute times on a shared machine mean little, so the result is the ratio of neighbouring steps,
with its quartiles.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM, TrainingArguments

from trex_ds import TRexConfig
from trex_ds.data import IGNORED_LABEL, Collator, PackedCollator, PackedSet, plan_rows
from trex_ds.environment import describe_environment
from trex_ds.files import atomic_path
from trex_ds.modeling import ModelConfig, load_base_model, load_tokenizer
from trex_ds.training.trainer import TRexTrainer

Batches = list[dict[str, torch.Tensor]]


def make_trainer(name: str, dtype: str) -> TRexTrainer:
    """A trainer of a fresh adapter on the named base model, or on a random Llama if the name is `random`."""
    torch.manual_seed(0)
    if name == "random":
        sizes = {"hidden_size": 512, "intermediate_size": 1408, "num_hidden_layers": 8, "num_attention_heads": 8}
        base = LlamaForCausalLM(LlamaConfig(vocab_size=32_000, **sizes)).to(getattr(torch, dtype))
    else:
        base = load_base_model(ModelConfig(name=name, dtype=dtype))
    model = get_peft_model(base, TRexConfig(), autocast_adapter_dtype=False).train()
    arguments = TrainingArguments(tempfile.mkdtemp(), use_cpu=not torch.cuda.is_available(), report_to="none")
    return TRexTrainer(model=model.to(arguments.device), args=arguments)


def prompt_and_answer_lengths(file: Path | None, name: str) -> np.ndarray:
    """Tokens of prompt and answer of each example, (examples, 2): a JSONL's, or a built-in distribution."""
    if file is None:
        drawn = np.random.default_rng(0).lognormal(np.log([80, 12]), 0.8, (100_000, 2))
        return np.ceil(drawn).astype(int)
    tokenizer = load_tokenizer(name)
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    return np.array([[len(tokenizer(row[key])["input_ids"]) for key in ("prompt", "answer")] for row in rows])


def examples(lengths: np.ndarray, count: int, vocabulary: int) -> Iterator[list[dict[str, Any]]]:
    """Without end: `count` examples of random ids and scores, with lengths from `lengths`."""
    generator = np.random.default_rng(0)
    while True:
        chosen = lengths[generator.integers(len(lengths), size=count)]
        ids = [generator.integers(vocabulary, size=int(total)).tolist() for total in chosen.sum(1)]
        yield [
            {
                "input_ids": row,
                "labels": [IGNORED_LABEL] * int(prompt) + row[int(prompt) :],
                "intuition": torch.from_numpy(generator.random(32)),
            }
            for row, prompt in zip(ids, chosen[:, 0], strict=True)
        ]


def padded(items: list[Any], micro_batch: int) -> Batches:
    collate = Collator(pad_token_id=0)
    return [collate(items[i : i + micro_batch]) for i in range(0, len(items), micro_batch)]


def packed(items: list[Any], row_length: int, budget: int) -> Batches:
    rows = PackedSet(items, plan_rows([len(item["input_ids"]) for item in items], row_length, seed=0))
    collate, at_once = PackedCollator(pad_token_id=0, one_row=False), budget // row_length
    return [collate([rows[r] for r in range(i, min(i + at_once, len(rows)))]) for i in range(0, len(rows), at_once)]


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


def quartiles(values: list[float]) -> dict[str, float]:
    low, median, high = statistics.quantiles(values, n=4)
    return {"lower_quartile": low, "median": median, "upper_quartile": high, "pairs": len(values)}


def measure(given: argparse.Namespace) -> dict[str, Any]:
    trainer = make_trainer(given.model, given.dtype)
    step = make_step(trainer)
    lengths = prompt_and_answer_lengths(given.data, given.model)
    lengths = lengths[lengths.sum(1) <= min(given.pack_lengths)]
    source = examples(lengths, given.examples, trainer.model.config.vocab_size)
    ways: dict[str, Callable[[list[Any]], Batches]] = {"padded": lambda items: padded(items, given.micro_batch)}
    for length in given.pack_lengths:
        ways[f"packed_{length}"] = lambda items, length=length: packed(items, length, given.budget)
    for make in ways.values():
        step(make(next(source)[: given.micro_batch]))  # warm-up
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    real, shapes = [], {way: np.zeros(2, dtype=int) for way in ways}
    for round_ in range(given.rounds):
        items = next(source)
        real.append(sum(len(item["input_ids"]) for item in items))
        for way in list(ways)[:: -1 if round_ % 2 else 1]:
            batches = ways[way](items)
            shapes[way] += sum(batch["input_ids"].numel() for batch in batches), len(batches)
            seconds[way].append(step(batches))
    return {
        way: {
            "speedup_over_padded": quartiles([a / b for a, b in zip(seconds["padded"], taken, strict=True)]),
            "real_tokens_per_second": statistics.median(n / s for n, s in zip(real, taken, strict=True)),
            "real_tokens_of_all": sum(real) / int(shapes[way][0]),
            "tokens_in_a_micro_batch": int(shapes[way][0]) / int(shapes[way][1]),
        }
        for way, taken in seconds.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--model", default="random", help="a name as in a recipe, or random")
    parser.add_argument("--data", type=Path, help="JSONL of prompt and answer; default: lognormal lengths")
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="float32")
    parser.add_argument("--examples", type=int, default=32, help="of one optimizer step")
    parser.add_argument("--micro-batch", type=int, default=8, help="padded rows at once")
    parser.add_argument("--pack-lengths", type=int, nargs="+", default=[512, 1024, 2048], help="of packed rows")
    parser.add_argument("--budget", type=int, default=2048, help="packed tokens at once")
    parser.add_argument("--rounds", type=int, default=20)
    given = parser.parse_args()
    result = {
        "settings": {k: str(v) if isinstance(v, Path) else v for k, v in vars(given).items() if k != "output"},
        "seed": 0,
        **measure(given),
        "environment": describe_environment(),
    }
    with atomic_path(given.output) as temporary:
        temporary.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps({k: v for k, v in result.items() if k != "environment"}, indent=1))


if __name__ == "__main__":
    main()
