"""A stand-in for a sentence embedder, without a model."""

from __future__ import annotations

import hashlib
import weakref
from collections.abc import Sequence

import torch

from trex_ds.intuition.embedder import EmbedderIdentity

DIMENSION = 16


class FakeEmbedder:
    """Near a direction of its own for each text's first word.

    As in a real embedder, the last bits depend on the other texts of the batch. It fails once
    `fail_after` batches are done. Keeps what was embedded and how many of its rows were alive at most.
    """

    def __init__(self, weights: str = "feed", fail_after: int | None = None):
        self.identity = EmbedderIdentity("fake", "", weights, "mean", "", DIMENSION)
        self.embedded: list[str] = []
        self.most_alive = 0
        self._fail_after = fail_after
        self._given: list[weakref.ref[torch.Tensor]] = []

    def embed(self, texts: Sequence[str]) -> torch.Tensor:
        if len(self._given) == self._fail_after:
            raise MemoryError("out of imaginary memory")
        self.embedded += texts
        rows = torch.stack([_direction(text.split()[0]) + 0.3 * _direction(text) for text in texts])
        rows += 1e-6 * _direction("|".join(texts))
        rows = torch.nn.functional.normalize(rows, dim=1)
        self._given.append(weakref.ref(rows))
        alive = [given() for given in self._given]
        self.most_alive = max(self.most_alive, sum(len(kept) for kept in alive if kept is not None))
        return rows


def _direction(text: str) -> torch.Tensor:
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:7])
    return torch.nn.functional.normalize(torch.randn(DIMENSION, generator=torch.Generator().manual_seed(seed)), dim=0)


def planted_prompts(sizes: dict[str, int]) -> list[str]:
    """`sizes[topic]` prompts that begin with each topic, their lengths mixed."""
    return [f"{topic} {'very ' * (i % 7)}question {i}" for topic, size in sizes.items() for i in range(size)]
