"""Intuition scores at inference: from prompts to scores with an adapter's own centroids."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from trex_ds.intuition.centroids import Centroids
from trex_ds.intuition.embedder import Embedder, SentenceTransformerEmbedder


class Intuition:
    """c(x) = C e(x): scores prompts with one embedder and the centroids that were made with it.

    Raises ValueError if the centroids were made with another embedder.
    """

    def __init__(self, embedder: Embedder, centroids: Centroids):
        centroids.check_embedder(embedder.identity)
        self.embedder = embedder
        self.centroids = centroids

    def __call__(self, prompts: Sequence[str]) -> torch.Tensor:
        """Score `prompts` in one forward pass of the embedder: raw cosines, float32 (len(prompts), N)."""
        return self.centroids.score(self.embedder.embed(prompts))

    @classmethod
    def from_adapter(cls, folder: str | Path, embedder: Embedder | None = None) -> Intuition:
        """The intuition of the adapter saved in `folder`, with the embedder it was trained with.

        That embedder is opened by its recorded name unless a copy of it is given.

        Raises:
            FileNotFoundError: the folder has no centroids.
            ValueError: they are damaged, or the embedder cannot be opened or is not the one they need.
        """
        centroids = Centroids.load(folder)
        if embedder is None:
            wanted = centroids.embedder
            try:
                embedder = SentenceTransformerEmbedder(wanted.name, wanted.revision or None, wanted.prompt)
            except ValueError as error:
                raise ValueError(
                    f"the adapter in {folder} needs the embedder {wanted}, which cannot be opened: {error}. "
                    "If you have a copy elsewhere: Intuition.from_adapter(folder, embedder="
                    f"SentenceTransformerEmbedder(path, prompt={wanted.prompt!r}))"
                ) from error
        return cls(embedder, centroids)
