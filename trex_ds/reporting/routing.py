"""Do clusters mean something, and do experts specialise by cluster?  Both against what permuted labels give."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from trex_ds.adapters import RoutedLinear
from trex_ds.adapters.trex_router import TRexRouter
from trex_ds.reporting.intervals import CONFIDENCE, Interval
from trex_ds.tasks.seeding import seeded_order
from trex_ds.training.preparation import Prepared

PERMUTATIONS = 200
MOST_EXAMPLES = 20_000
"""Training examples whose clusters are compared with their tasks, at most."""
MOST_PROMPTS = 512
"""Evaluation prompts that an adapter's routing is looked at on, at most."""


@dataclass(frozen=True)
class AgainstChance:
    """A statistic of labels, and the same with the labels permuted."""

    value: float
    chance: Interval
    """Mean and 95% interval of the permutations'."""
    samples: int
    labels: int
    """Distinct ones that occur."""


def cluster_meaning(prepared: Prepared, seed: int) -> AgainstChance | None:
    """Adjusted mutual information of each training example's nearest centroid and its task; None with a single task."""
    from sklearn.metrics import adjusted_mutual_info_score

    assert prepared.intuition is not None
    store = prepared.store
    # Stable under another order of the tasks, so that the same data give the same sample.
    chosen = np.sort(np.argsort(seeded_order(np.asarray(store.digests), seed), kind="stable")[:MOST_EXAMPLES])
    tasks: np.ndarray = np.empty(len(store.train), np.int64)
    for number, name in enumerate(store.counts):
        tasks[store.positions(name)] = number
    rows = prepared.intuition.rows(store.digests[chosen])
    clusters = np.asarray(prepared.intuition.scores[rows]).argmax(axis=1)
    if len(np.unique(tasks[chosen])) < 2:
        return None
    return _against_chance(lambda labels: float(adjusted_mutual_info_score(tasks[chosen], labels)), clusters, seed)


@dataclass(frozen=True)
class Specialisation:
    """Share of the variance of routing weights over prompts that lies between clusters, in all adapted linears."""

    adapter: str
    routing: AgainstChance
    """Of G as a whole. The intuition in it depends on the prompt's place among the clusters from the first step on."""
    token_routing: AgainstChance | None
    """Of the token router's shares alone, which are the same for all prompts before training; None without one."""


def specialisation(folder: Path, prepared: Prepared, seed: int) -> Specialisation:
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
    step = max(1, len(prepared.questions) // MOST_PROMPTS)
    questions = prepared.questions[::step][:MOST_PROMPTS]
    scores = answerer.intuition([question.example.text for question in questions])
    clusters = scores.argmax(dim=1).cpu().numpy()
    if len(np.unique(clusters)) < 2:
        raise ValueError(f"all {len(questions)} evaluation prompts lie in one cluster")
    G, shares = [], []
    for question, own in zip(tqdm(questions, desc="routing of prompts", mininterval=2.0), scores, strict=True):
        found = _routing(answerer.model, question.input_ids, own)
        G.append(np.concatenate([g for g, _ in found]))
        shares.append(np.concatenate([s for _, s in found if s is not None] or [np.zeros(0)]))
    token = np.stack(shares)
    return Specialisation(
        adapter=str(folder),
        routing=_between(np.stack(G), clusters, seed),
        token_routing=_between(token, clusters, seed) if token.size else None,
    )


def between_clusters(weights: np.ndarray, clusters: np.ndarray) -> float:
    """Sum of squares between clusters over the whole sum of squares, of weights (prompts, anything); 0 if constant."""
    centred = weights - weights.mean(axis=0)
    total = float((centred**2).sum())
    _, members = np.unique(clusters, return_inverse=True)
    sums = np.zeros((members.max() + 1, weights.shape[1]))
    np.add.at(sums, members, centred)
    between = float((sums**2 / np.bincount(members)[:, None]).sum())
    return between / total if total > 0 else 0.0


def _between(weights: np.ndarray, clusters: np.ndarray, seed: int) -> AgainstChance:
    return _against_chance(lambda labels: between_clusters(weights, labels), clusters, seed)


def _against_chance(statistic: Any, labels: np.ndarray, seed: int) -> AgainstChance:
    generator = np.random.default_rng(seed)
    permuted = [statistic(generator.permutation(labels)) for _ in range(PERMUTATIONS)]
    tail = 50 * (1 - CONFIDENCE)
    low, high = np.percentile(permuted, [tail, 100 - tail])
    chance = Interval(float(np.mean(permuted)), float(low), float(high))
    return AgainstChance(statistic(labels), chance, len(labels), len(np.unique(labels)))


@torch.no_grad()
def _routing(model: Any, ids: Sequence[int], scores: Tensor) -> list[tuple[np.ndarray, np.ndarray | None]]:
    """Of each adapted linear, in order: means over the prompt's tokens of G, and of the token router's shares."""
    with _watched(model) as found:
        batch = torch.tensor([list(ids)], device=model.device)
        model(input_ids=batch, intuition=scores.unsqueeze(0).to(model.device), use_cache=False, logits_to_keep=1)
    if not found:
        raise ValueError("the adapter is not T-REX's: it has none of its routers")
    return found


@contextmanager
def _watched(model: Any) -> Iterator[list[tuple[np.ndarray, np.ndarray | None]]]:
    found: list[tuple[np.ndarray, np.ndarray | None]] = []

    def look(layer: RoutedLinear, arguments: tuple[Tensor, ...]) -> None:
        name = layer.active_adapters[0]
        router = layer.trex_router[name]
        if isinstance(router, TRexRouter):
            found.append(_weights(layer, router, name, arguments[0]))

    with ExitStack() as stack:
        for layer in model.modules():
            if isinstance(layer, RoutedLinear):
                stack.callback(layer.register_forward_pre_hook(look).remove)
        yield found


def _weights(layer: RoutedLinear, router: TRexRouter, name: str, x: Tensor) -> tuple[np.ndarray, np.ndarray | None]:
    A, rows = layer.trex_A[name].float(), router.rows()
    a = x.float() @ A.t()
    logits = x.float() @ rows.float().t() if rows is not None else a[..., :0]
    side_input = layer.side_input.current
    assert side_input is not None
    scores = side_input.rows(name, *x.shape[:2])
    shares = router.token_shares(a, logits, router.others())
    G = router.weights(a, logits, router.others(), scores, None).mean(dim=(0, 1))
    return G.cpu().numpy(), None if shares is None else shares.mean(dim=(0, 1)).cpu().numpy()
