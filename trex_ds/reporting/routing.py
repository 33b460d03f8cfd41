"""Meaning of clusters, and specialization of experts by cluster, against what chance gives.

For clusters chance is a permutation of labels. For experts it is not: prompts of a cluster are alike, so that any
router gives them weights that are alike, even one that has learned nothing. There chance is a router of random weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trex_ds.adapters.layer import RoutedLinear
from trex_ds.adapters.router import Given
from trex_ds.adapters.trex_router import TRexRouter
from trex_ds.intervals import Interval, percentile_interval
from trex_ds.progress import Progress
from trex_ds.protocols import CausalLM
from trex_ds.seeding import seeded_order
from trex_ds.training.prepared import Prepared

PERMUTATIONS = 200
MOST_EXAMPLES = 20_000
"""Training examples whose clusters are compared with their tasks, at most."""
MOST_PROMPTS = 512
"""Evaluation prompts that an adapter's routing is looked at on, at most."""


RANDOM_ROUTERS = 19
"""Number of random routers: one that is like them lies above all of them with a chance of 1 in 20."""


@dataclass(frozen=True)
class AgainstChance:
    """A statistic, beside its values by chance."""

    value: float
    chance: Interval
    """Mean and 95% interval."""
    p: float
    """One-sided p-value: the value counts as one of those by chance."""
    samples: int
    labels: int
    """Number of distinct clusters that occur."""


def cluster_meaning(prepared: Prepared, seed: int) -> AgainstChance | str:
    """Adjusted mutual information of each training example's nearest centroid and its task, or why there is none."""
    from sklearn.metrics import adjusted_mutual_info_score

    if prepared.intuition is None:
        return "the recipe's adapter takes no intuition, so there are no clusters"
    store = prepared.store
    # Stable under another order of the tasks, so that the same data give the same sample.
    chosen = np.sort(np.argsort(seeded_order(np.asarray(store.digests), seed), kind="stable")[:MOST_EXAMPLES])
    tasks: np.ndarray = np.empty(len(store.train), np.int64)
    for number, name in enumerate(store.counts):
        tasks[store.positions(name)] = number
    rows = prepared.intuition.rows(store.digests[chosen])
    clusters = np.asarray(prepared.intuition.scores[rows]).argmax(axis=1)
    if len(np.unique(tasks[chosen])) < 2:
        return "all training examples are of one task, so clusters cannot be held against tasks"
    return _against_chance(lambda labels: float(adjusted_mutual_info_score(tasks[chosen], labels)), clusters, seed)


@dataclass(frozen=True)
class Specialization:
    """Share of the variance of routing weights over prompts that lies between clusters, in all adapted linears."""

    adapter: str
    routing: AgainstChance
    """Result for G as a whole, whose intuition depends on the prompt's cluster from the first step on."""
    token_routing: AgainstChance | None
    """Result for the token router's shares alone, against routers of random weights; None without a token router."""


def specialization(folder: Path, prepared: Prepared, seed: int) -> Specialization:
    """Run the trained adapter in `folder` on evaluation prompts, each rank for itself: rank 0 alone should call it.

    A prompt's weights are means over its tokens. The base model must fit on one device.

    Raises:
        FileNotFoundError: if the folder is not a complete adapter.
        ValueError: if it has no T-REX adapter with intuition, or its prompts all lie in one cluster.
    """
    from trex_ds.answering import Answerer

    answerer = Answerer.from_adapter(folder)
    if answerer.intuition is None:
        raise ValueError(f"the adapter in {folder} takes no intuition, so it has no clusters")
    if answerer.tokenizer.get_vocab() != prepared.tokenizer.get_vocab():
        raise ValueError(f"the adapter in {folder} is of a base model with another vocabulary than the recipe's")
    step = max(1, len(prepared.questions) // MOST_PROMPTS)
    questions = prepared.questions[::step][:MOST_PROMPTS]
    scores = answerer.intuition([question.example.text for question in questions])
    clusters = scores.argmax(dim=1).cpu().numpy()
    if len(np.unique(clusters)) < 2:
        raise ValueError(f"all {len(questions)} evaluation prompts lie in one cluster")
    draws = _RandomRouters(seed)
    G, shares, random = [], [], []
    for question, own in zip(Progress(questions, desc="routing of prompts", unit=" prompts"), scores, strict=True):
        found = _routing(answerer.model, question.input_ids, own, draws)
        G.append(np.concatenate([weights.G for weights in found]))
        shares.append(np.concatenate([weights.shares for weights in found]))
        random.append(np.concatenate([weights.random for weights in found], axis=1))
    return Specialization(
        adapter=str(folder),
        routing=_between(np.stack(G), clusters, seed),
        token_routing=_against_random(np.stack(shares), np.stack(random, axis=1), clusters) if shares[0].size else None,
    )


def between_clusters(weights: np.ndarray, clusters: np.ndarray) -> float:
    """Sum of squares between clusters over the whole sum of squares, of weights (prompts, anything); 0 if constant."""
    centered = weights - weights.mean(axis=0)
    total = float((centered**2).sum())
    _, members = np.unique(clusters, return_inverse=True)
    sums = np.zeros((members.max() + 1, weights.shape[1]))
    np.add.at(sums, members, centered)
    between = float((sums**2 / np.bincount(members)[:, None]).sum())
    return between / total if total > 1e-12 * float((weights**2).sum()) else 0.0  # else it is rounding


def _between(weights: np.ndarray, clusters: np.ndarray, seed: int) -> AgainstChance:
    return _against_chance(lambda labels: between_clusters(weights, labels), clusters, seed)


def _against_random(shares: np.ndarray, random: np.ndarray, clusters: np.ndarray) -> AgainstChance:
    """Compare shares (prompts, pairs) with those of random routers (draws, prompts, pairs)."""
    by_chance = [between_clusters(draw, clusters) for draw in random]
    return _to_chance(between_clusters(shares, clusters), by_chance, clusters)


def _against_chance(statistic: Any, labels: np.ndarray, seed: int) -> AgainstChance:
    generator = np.random.default_rng(seed)
    permuted = [statistic(generator.permutation(labels)) for _ in range(PERMUTATIONS)]
    return _to_chance(statistic(labels), permuted, labels)


def _to_chance(value: float, by_chance: Sequence[float], labels: np.ndarray) -> AgainstChance:
    chance = percentile_interval(float(np.mean(by_chance)), by_chance)
    p = (1 + sum(other >= value for other in by_chance)) / (len(by_chance) + 1)
    return AgainstChance(value, chance, p, len(labels), len(np.unique(labels)))


class _RandomRouters:
    """Token routers with the shapes of trained ones, and their rows' norms, in random directions."""

    def __init__(self, seed: int):
        self._generator = torch.Generator().manual_seed(seed)
        self._drawn: dict[int, Tensor] = {}

    def like(self, weight: Tensor) -> Tensor:
        """(RANDOM_ROUTERS, *weight.shape), the same whenever it is asked for the same weight."""
        if id(weight) not in self._drawn:
            directions = torch.randn(RANDOM_ROUTERS, *weight.shape, generator=self._generator).to(weight.device)
            norms = weight.detach().float().norm(dim=-1, keepdim=True)
            self._drawn[id(weight)] = directions / directions.norm(dim=-1, keepdim=True) * norms
        return self._drawn[id(weight)]

    def shares(self, router: TRexRouter, a: Tensor, x: Tensor) -> Tensor:
        """Token shares of random routers in the router's place, means over tokens: (RANDOM_ROUTERS, pairs).

        Args:
            router: the trained one, with a token routing.
            a: A x, (1, seq, rows of A).
            x: the linear's input, (1, seq, in_features).
        """
        reading = router.reading_weights()
        logits = a[..., :0] if reading is None else x @ self.like(reading).mT
        drawn = {name: self.like(tensor) for name, tensor in router.others().items()}
        shares = router.token_shares(Given(a, logits, drawn))
        assert shares is not None
        return shares.mean(dim=1)


@dataclass(frozen=True)
class _Weights:
    """Weights of one adapted linear, means over a prompt's tokens."""

    G: np.ndarray
    """(pairs,)"""
    shares: np.ndarray
    """The token router's, (pairs,); (0,) without one."""
    random: np.ndarray
    """Shares of random routers, (draws, pairs); (draws, 0) without a token router."""


@torch.no_grad()
def _routing(model: CausalLM, ids: Sequence[int], scores: Tensor, draws: _RandomRouters) -> list[_Weights]:
    """Weights of each adapted linear, in order."""
    with _watched(model, draws) as found:
        batch = torch.tensor([list(ids)], device=model.device)
        model(input_ids=batch, intuition=scores.unsqueeze(0).to(model.device), use_cache=False, logits_to_keep=1)
    if not found:
        raise ValueError("the adapter is not T-REX's: it has none of its routers")
    return found


@contextmanager
def _watched(model: CausalLM, draws: _RandomRouters) -> Iterator[list[_Weights]]:
    found: list[_Weights] = []

    def look(layer: RoutedLinear, arguments: tuple[Tensor, ...]) -> None:
        name = layer.active_adapters[0]
        router = layer.trex_router[name]
        if isinstance(router, TRexRouter):
            found.append(_weights(layer, router, name, arguments[0], draws))

    with ExitStack() as stack:
        for layer in model.modules():
            if isinstance(layer, RoutedLinear):
                stack.callback(layer.register_forward_pre_hook(look).remove)
        yield found


def _weights(layer: RoutedLinear, router: TRexRouter, name: str, x: Tensor, draws: _RandomRouters) -> _Weights:
    side_input = layer.side_input.current
    assert side_input is not None
    shape, token_rows = side_input.fit(name, x.shape[:-1], layer.name)
    A, reading = layer.trex_A[name].float(), router.reading_weights()
    x = x.float().reshape(*shape, -1)
    a = x @ A.t()
    logits = x @ reading.float().t() if reading is not None else a[..., :0]
    given = Given(a, logits, router.others(), side_input.by_adapter.get(name), token_rows)
    G = router.weights(given).mean(dim=(0, 1)).cpu().numpy()
    shares = router.token_shares(given)
    if shares is None:
        return _Weights(G, np.zeros(0), np.zeros((RANDOM_ROUTERS, 0)))
    return _Weights(G, shares.mean(dim=(0, 1)).cpu().numpy(), draws.shares(router, a, x).cpu().numpy())
