"""Intuition scores of contexts: from a table that is already there, or embedded once each over all ranks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from trex_ds.distributed import sum_over_ranks
from trex_ds.intuition.centroids import Centroids
from trex_ds.intuition.embedder import Embedder
from trex_ds.intuition.sharding import ShardedEmbedder


class KnownScores:
    """Looks up scores that an earlier pass has made.

    Args:
        contexts: texts.
        scores: their raw cosines, (len(contexts), N).
    """

    def __init__(self, contexts: Sequence[str], scores: Tensor):
        self._row = {context: row for row, context in enumerate(contexts)}
        self._scores = scores

    def __call__(self, contexts: Sequence[str]) -> Tensor:
        """Raw cosines (len(contexts), N).

        Raises:
            ValueError: a context that has none.
        """
        unknown = [context for context in contexts if context not in self._row]
        if unknown:
            raise ValueError(
                f"{len(unknown)} contexts have no intuition scores; the first begins with {unknown[0][:80]!r}; "
                "score the contexts of all examples first"
            )
        return self._scores[[self._row[context] for context in contexts]]


class EmbeddedScores:
    """Embeds contexts with an adapter's own embedder; a collective that remembers every score.

    Raises ValueError if the centroids were made with another embedder.
    """

    def __init__(self, embedder: Embedder, centroids: Centroids, batch_size: int):
        centroids.check_embedder(embedder.identity)
        self._embedder = embedder
        self._centroids = centroids
        self._batch_size = batch_size
        self._known: dict[str, Tensor] = {}

    def __call__(self, contexts: Sequence[str]) -> Tensor:
        """Raw cosines (len(contexts), N); every rank calls it with the same contexts."""
        new = sorted({*contexts} - self._known.keys(), key=lambda text: (len(text), text))
        if new:
            with ShardedEmbedder(self._embedder, self._batch_size, num_texts=len(new)) as sharded:
                scores = sum_over_ranks(sharded.score(new, self._centroids.vectors))
            self._known.update(zip(new, scores, strict=True))
        return torch.stack([self._known[context] for context in contexts])
