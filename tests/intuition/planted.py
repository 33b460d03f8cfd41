"""Centroids without an embedder, for tests that only need some."""

from __future__ import annotations

import torch

from trex_ds.intuition.centroids import Centroids
from trex_ds.intuition.embedder import EmbedderIdentity

DIMENSION = 16


def planted_centroids(num_clusters: int, seed: int = 0) -> Centroids:
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.nn.functional.normalize(torch.randn(num_clusters, DIMENSION, generator=generator), dim=1)
    return Centroids(
        vectors=vectors,
        mean=torch.rand(num_clusters, generator=generator),
        std=0.1 + torch.rand(num_clusters, generator=generator),
        embedder=EmbedderIdentity("planted", "", "0" * 16, "mean", "", DIMENSION),
        data_fingerprint="0" * 64,
        seed=seed,
        num_fitted=100,
    )
