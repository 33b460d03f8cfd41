"""Step time of T-REX against PEFT's LoRA: python benchmarks/layer.py --output benchmarks/results/layer.json.

Whole training steps (forward, backward, AdamW) of a random Llama, A B A B in one process. Absolute times on a
shared machine mean little, so the result is the ratio of neighboring steps, with its quartiles. LoRA against
LoRA (A/A) shows the noise.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from ratios import quartiles
from transformers import LlamaConfig, LlamaForCausalLM

from trex_ds import TRexConfig
from trex_ds.environment import describe_environment
from trex_ds.files import write_json


def make_step(kind: str, hidden: int, dtype: torch.dtype, batch: int, seq: int, device: str) -> Callable[[], float]:
    """A function that runs one training step with a fresh model of this kind and returns its seconds."""
    torch.manual_seed(0)
    sizes = LlamaConfig(
        vocab_size=1024,
        hidden_size=hidden,
        intermediate_size=8 * hidden // 3,
        num_hidden_layers=2,
        num_attention_heads=hidden // 64,
    )
    base = LlamaForCausalLM(sizes).to(device, dtype)
    config = TRexConfig() if kind == "trex" else LoraConfig(r=16, target_modules="all-linear")
    model = get_peft_model(base, config, autocast_adapter_dtype=False)
    trainable = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=1e-4)
    ids = torch.randint(1024, (batch, seq), device=device)
    inputs = {"input_ids": ids, "labels": ids}
    if kind == "trex":
        inputs["intuition"] = torch.rand(batch, 32, device=device)

    def step() -> float:
        start = time.perf_counter()
        model(**inputs).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    return step


def ratios(a: Callable[[], float], b: Callable[[], float], pairs: int) -> dict[str, float]:
    """Quartiles of b's time over a's, step by step in turn, after two steps of warm-up."""
    for step in (a, b, a, b):
        step()
    found = []
    for i in range(pairs):
        if i % 2:
            other, own = b(), a()
        else:
            own, other = a(), b()
        found.append(other / own)
    return quartiles(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--hidden", type=int, default=1024)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--seq", type=int, default=128)
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    parser.add_argument("--pairs", type=int, default=40)
    given = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    shape = (given.hidden, getattr(torch, given.dtype), given.batch, given.seq, device)
    lora, again, trex = (make_step(kind, *shape) for kind in ("lora", "lora", "trex"))
    result = {
        "settings": {k: v for k, v in vars(given).items() if k != "output"},
        "seed": 0,
        "trex_over_lora": ratios(lora, trex, given.pairs),
        "lora_over_lora": ratios(lora, again, given.pairs),
        "environment": describe_environment(),
    }
    write_json(given.output, result)
    print(json.dumps({k: result[k] for k in ("trex_over_lora", "lora_over_lora")}, indent=1))


if __name__ == "__main__":
    main()
