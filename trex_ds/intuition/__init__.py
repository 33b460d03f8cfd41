"""The intuition pass: prompts to embeddings, to centroids, to the scores that route a sample."""

from trex_ds.intuition.centroids import CENTROIDS_FILE, Centroids
from trex_ds.intuition.clustering import IntuitionConfig, intuition_pass
from trex_ds.intuition.embedder import Embedder, EmbedderIdentity, SentenceTransformerEmbedder
from trex_ds.intuition.scorer import Intuition
from trex_ds.intuition.scores import IntuitionResult, text_digests

__all__ = [
    "CENTROIDS_FILE",
    "Centroids",
    "Embedder",
    "EmbedderIdentity",
    "Intuition",
    "IntuitionConfig",
    "IntuitionResult",
    "SentenceTransformerEmbedder",
    "intuition_pass",
    "text_digests",
]
