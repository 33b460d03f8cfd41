"""Intuition of contexts, each embedded once over all ranks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from trex_ds.distributed import sum_over_ranks
from trex_ds.intuition.centroids import Centroids
from trex_ds.intuition.embedder import Embedder
from trex_ds.intuition.sharding import ShardedEmbedder


class EmbeddedIntuition:
    """Embeds contexts with an adapter's own embedder, and remembers the result.

    Args:
        embedder: the adapter's.
        centroids: the adapter's.
        batch_size: texts that a rank embeds at a time.

    Raises:
        ValueError: the centroids were made with another embedder.
    """

    def __init__(self, embedder: Embedder, centroids: Centroids, batch_size: int):
        centroids.check_embedder(embedder.identity)
        self._embedder = embedder
        self._centroids = centroids
        self._batch_size = batch_size
        self._known: dict[str, Tensor] = {}

    def __call__(self, contexts: Sequence[str]) -> Tensor:
        """Raw cosines (len(contexts), N); a collective, for which every rank has the same contexts."""
        new = sorted({*contexts} - self._known.keys(), key=lambda text: (len(text), text))
        if new:
            with ShardedEmbedder(self._embedder, self._batch_size, num_texts=len(new)) as sharded:
                cosines = sum_over_ranks(sharded.score(new, self._centroids.vectors))
            self._known.update(zip(new, cosines, strict=True))
        return torch.stack([self._known[context] for context in contexts])
