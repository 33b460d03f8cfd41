"""Error of approximating a set of target updates, as I*J grows: in float64, on made-up targets.

One update is no test: for one token T-REX's own has rank min(I, J) at most. What the paper's theory is about is many
tokens with an update each, which together span up to I*J dimensions. So the target is a set of updates: K groups of
tokens, around a mean each, and for each group an rank-one update dW_k in random directions; y = dW_k x. A layer of
(I, J) experts learns it from tokens with their group's number as intuition, and the error is taken on other tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from peft import get_peft_model
from torch import Tensor, nn

from trex_ds.adapters.trex import TRexConfig
from trex_ds.intervals import Interval, mean_by_t
from trex_ds.progress import Progress

SIZES = ((1, 1), (2, 2), (2, 4), (4, 4), (4, 8), (8, 8))
"""(I, J), none of them smaller than the one before in either."""
WIDTH, GROUPS, SAMPLES, TOKENS = 16, 16, 64, 8
"""Inputs and outputs of the layer, K, samples (each of one group), tokens of a sample."""
SEEDS, STEPS, LEARNING_RATE = 5, 100, 0.05


@dataclass(frozen=True)
class Approximation:
    """Relative squared errors by (I, J) and seed; 1 is the error of no update at all."""

    sizes: tuple[tuple[int, int], ...]
    learned: list[list[float]]
    """Errors of the layer with its own router, after training, on tokens that it has not seen: (sizes, seeds)."""
    free: list[list[float]]
    """Errors for the targets themselves, where each group has the G that is best for it: (sizes, seeds)."""

    def change(self, first: int, last: int) -> Interval:
        """Mean over seeds of the logarithm of the learned error at one size over that at another before it."""
        return mean_by_t(np.log(self.learned[last]) - np.log(self.learned[first]))


def measure(sizes: tuple[tuple[int, int], ...] = SIZES, seeds: int = SEEDS, steps: int = STEPS) -> Approximation:
    """Fit every size at every seed; the result depends on the arguments alone. Takes seconds, in this process."""
    learned: list[list[float]] = [[] for _ in sizes]
    free: list[list[float]] = [[] for _ in sizes]
    with Progress(total=len(sizes) * seeds, desc="approximation of target updates", unit=" fits") as bar:
        for seed in range(seeds):
            targets = _Targets(seed)
            for size, (i, j) in enumerate(sizes):
                learned[size].append(_learned_error(targets, i, j, steps, seed))
                free[size].append(_free_error(targets.updates, i, j))
                bar.update()
    return Approximation(sizes, learned, free)


class _Targets:
    """The updates (K, m, n), and tokens to learn and to measure on."""

    def __init__(self, seed: int):
        self._generator = torch.Generator().manual_seed(seed)
        u, v = self._normal(GROUPS, WIDTH, 1), self._normal(GROUPS, 1, WIDTH)
        self.updates = u @ v / WIDTH
        self._means = self._normal(GROUPS, WIDTH)
        self.training, self.held_out = self._tokens(), self._tokens()

    def _normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self._generator, dtype=torch.float64)

    def _tokens(self) -> tuple[Tensor, Tensor, Tensor]:
        """X (samples, tokens, n), the group's number as one-hot scores (samples, K), y (samples, tokens, m)."""
        group = torch.arange(SAMPLES) % GROUPS
        x = self._means[group].unsqueeze(1) + self._normal(SAMPLES, TOKENS, WIDTH)
        scores = nn.functional.one_hot(group, GROUPS).double()
        return x, scores, x @ self.updates[group].transpose(1, 2)


class _OneLinear(nn.Module):
    """A linear whose output is zero, so that the adapter's update is all there is."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(WIDTH, WIDTH, bias=False, dtype=torch.float64)
        nn.init.zeros_(self.linear.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x)


def _learned_error(targets: _Targets, num_in: int, num_out: int, steps: int, seed: int) -> float:
    config = TRexConfig(
        num_in_experts=num_in,
        num_out_experts=num_out,
        num_clusters=GROUPS,
        intuition_transform="mapped",
        # At the paper's 100 the first steps of this fast training would switch one of the two routings off for good.
        gate_sharpness=1.0,
        target_modules=["linear"],
        task_type=None,
    )
    torch.manual_seed(seed)
    model = get_peft_model(_OneLinear(), config).double()
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.05, steps)
    x, scores, y = targets.training
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.mse_loss(model(x, intuition=scores), y).backward()
        optimizer.step()
        schedule.step()
    x, scores, y = targets.held_out
    with torch.no_grad():
        return float((model(x, intuition=scores) - y).square().sum() / y.square().sum())


def _free_error(updates: Tensor, num_in: int, num_out: int, rounds: int = 30) -> float:
    """Error of the best A and B with any G for each update: Tucker-2 of (K, m, n) by HOOI."""
    A = torch.linalg.eigh(torch.einsum("kmn,kmp->np", updates, updates))[1][:, -num_in:]
    for _ in range(rounds):
        projected = updates @ A
        B = torch.linalg.eigh(torch.einsum("kmi,kpi->mp", projected, projected))[1][:, -num_out:]
        projected = B.T @ updates
        A = torch.linalg.eigh(torch.einsum("kjn,kjp->np", projected, projected))[1][:, -num_in:]
    return float(1 - (B.T @ updates @ A).square().sum() / updates.square().sum())
