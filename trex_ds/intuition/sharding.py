"""Embedding over all ranks, in batches that do not depend on how many ranks there are."""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType

import torch
import torch.distributed as dist

from trex_ds.distributed import agreed, collective_device, rank, world_size
from trex_ds.intuition.centroids import cosine_scores
from trex_ds.intuition.embedder import Embedder
from trex_ds.progress import Progress


class ShardedEmbedder:
    """Deals whole batches to the ranks, a round at a time, under one progress bar on rank 0.

    An embedding depends on its batch in the last bits (padding, order of sums), so batches are cut
    from the texts first and dealt to the ranks then. Each method is a collective that takes every
    rank through the same calls whatever its share, and fails on all ranks or on none: RuntimeError,
    naming the rank.
    """

    def __init__(self, embedder: Embedder, batch_size: int, num_texts: int):
        self._embedder = embedder
        self._identity = embedder.identity
        self._batch_size = batch_size
        self._bar = Progress(total=num_texts, desc="intuition pass", unit=" prompts", shown=rank() == 0)

    def __enter__(self) -> ShardedEmbedder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()

    def new_matrix(self, count: int) -> torch.Tensor:
        """Allocate `count` embeddings (count, d) on rank 0, none (0, d) elsewhere."""
        return torch.empty(count if rank() == 0 else 0, self._identity.dimension)

    def skip(self, count: int) -> None:
        """Count `count` texts as done."""
        self._bar.update(count)

    def embed_on_rank_zero(self, texts: list[str]) -> torch.Tensor:
        """All embeddings (len(texts), d) on rank 0, none (0, d) elsewhere."""
        matrix = self.new_matrix(len(texts))
        for batches in self._rounds(len(texts)):
            parts = self._gather_on_rank_zero(self._embed(texts[_own(batches)]))
            if rank() == 0:
                for rows, part in zip(batches, parts, strict=False):  # the last round may be short of batches
                    matrix[rows] = part[: rows.stop - rows.start]
        return matrix

    def score(self, texts: list[str], vectors: torch.Tensor) -> torch.Tensor:
        """Cosines with `vectors` (N, d), as (len(texts), N): this rank's batches, zeros elsewhere."""
        scores = torch.zeros(len(texts), len(vectors))
        for batches in self._rounds(len(texts)):
            own = _own(batches)
            scores[own] = cosine_scores(self._embed(texts[own]), vectors)
        return scores

    def _rounds(self, count: int) -> Iterator[list[slice]]:
        """The batches of `count` texts, up to one for each rank at a time."""
        size = self._batch_size
        batches = [slice(start, min(start + size, count)) for start in range(0, count, size)]
        for start in range(0, len(batches), world_size()):
            dealt = batches[start : start + world_size()]
            yield dealt
            self._bar.update(dealt[-1].stop - dealt[0].start)

    def _embed(self, texts: list[str]) -> torch.Tensor:
        """Embed this rank's batch (len(texts), d), which may be empty."""
        embeddings = torch.empty(0, self._identity.dimension)
        # Agreed on each round, so that no rank works on for an hour beside one that has failed.
        with agreed():
            try:
                if texts:
                    embeddings = self._embedder.embed(texts)
                    shape = (len(texts), self._identity.dimension)
                    if embeddings.shape != shape or not embeddings.isfinite().all():
                        raise ValueError(f"not finite values of shape {shape}: shape {tuple(embeddings.shape)}")
            except Exception as error:
                raise RuntimeError(
                    f"embedder {self._identity} failed on rank {rank()}, on a batch of {len(texts)} that begins "
                    f"with {texts[0][:80]!r}: {type(error).__name__}: {error}"
                ) from error
        return embeddings

    def _gather_on_rank_zero(self, rows: torch.Tensor) -> list[torch.Tensor]:
        """Each rank's rows in the order of ranks, padded to a full batch; nothing but on rank 0."""
        if world_size() == 1:
            return [rows]
        padded = torch.zeros(self._batch_size, self._identity.dimension, device=collective_device())
        padded[: len(rows)] = rows
        parts = [torch.empty_like(padded) for _ in range(world_size())] if rank() == 0 else []
        dist.gather(padded, parts or None, dst=0)
        return parts


def _own(batches: list[slice]) -> slice:
    return batches[rank()] if rank() < len(batches) else slice(0, 0)
