"""Linears in bfloat16, torch's own over trex_ds.bf16_matmul: python benchmarks/products.py --output FILE.

Forward and backward of one frozen linear after the other, A B A B in one process, in the shapes of
SmolLM2-135M. On a CPU with instructions for bfloat16 both are torch's own, and the ratio is 1.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch
from ratios import quartiles
from torch import nn

from trex_ds.bf16_matmul import cpu_lacks_bfloat16, use_float32_products
from trex_ds.environment import describe_environment
from trex_ds.files import write_json

SHAPES = {"q_proj": (576, 576), "gate_proj": (576, 1536), "down_proj": (1536, 576), "lm_head": (576, 49152)}


def seconds(layer: nn.Linear, x: torch.Tensor, dy: torch.Tensor) -> float:
    start = time.perf_counter()
    layer(x).backward(dy)
    return time.perf_counter() - start


def measure(shape: tuple[int, int], tokens: int, pairs: int) -> dict[str, float]:
    """Quartiles of torch's time over that of trex_ds.bf16_matmul, pair by pair after one of warm-up."""
    own, fast = (nn.Linear(*shape, bias=False, dtype=torch.bfloat16).requires_grad_(False) for _ in range(2))
    use_float32_products(fast)
    x = torch.randn(1, tokens, shape[0]).bfloat16().requires_grad_()
    dy = torch.randn(1, tokens, shape[1]).bfloat16()
    return quartiles([seconds(own, x, dy) / seconds(fast, x, dy) for _ in range(pairs + 1)][1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--pairs", type=int, default=5)
    given = parser.parse_args()
    torch.manual_seed(0)
    result = {
        "settings": {"tokens": given.tokens, "pairs": given.pairs},
        "seed": 0,
        "cpu_lacks_bfloat16": cpu_lacks_bfloat16(),
        "torch_over_products": {name: measure(shape, given.tokens, given.pairs) for name, shape in SHAPES.items()},
        "environment": describe_environment(),
    }
    write_json(given.output, result)
    print(json.dumps(result["torch_over_products"], indent=1))


if __name__ == "__main__":
    main()
