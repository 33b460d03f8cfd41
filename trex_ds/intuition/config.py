"""The `intuition` section of a recipe."""

from __future__ import annotations

from pydantic import NonNegativeInt, PositiveInt

from trex_ds.config import section

EMBEDDED_MINILM = "embedded:all-minilm-l6-v2"


@section
class IntuitionConfig:
    """How prompts become intuition scores."""

    embedder: str = EMBEDDED_MINILM
    """A sentence-transformers model: a folder, a hub id, or embedded:all-minilm-l6-v2 (needs no hub)."""
    revision: str | None = None
    """Hub branch, tag or commit of the embedder."""
    prompt: str = ""
    """Text put before every text that is embedded, such as "clustering: " for nomic-embed."""
    batch_size: PositiveInt = 32
    """Prompts per forward pass of the embedder, on each rank."""
    max_embeddings: PositiveInt = 20_000
    """Limit of prompts that the clusters are fitted on; it bounds the memory of rank 0."""
    seed: NonNegativeInt = 0
    """Seed of the sample of prompts and of the clustering."""
    centroids: str | None = None
    """A folder or file with centroids to use instead of fitting new ones."""
