"""Cluster centroids: what turns a sentence embedding into intuition scores."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from trex_ds.adapter_folder import CENTROIDS_FILE
from trex_ds.files import atomic_path
from trex_ds.intuition.embedder import EmbedderIdentity, tensor_digest
from trex_ds.intuition.saved import centroids_file

_HEADER_KEY = "trex_ds.centroids"
_STD_FLOOR = 1e-4


def cosine_scores(embeddings: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
    """Cosines of unit rows (batch, d) with unit rows (N, d), as (batch, N)."""
    return embeddings @ vectors.T


def score_statistics(chunks: Iterable[np.ndarray], counts: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation (N,) of scores that come in chunks (rows, N), row r counted counts[r] times.

    The deviation is kept above a small floor, so that dividing by it is always safe.
    """
    first: np.ndarray | float = 0.0
    second: np.ndarray | float = 0.0
    row = 0
    for chunk in chunks:
        weights: np.ndarray = counts[row : row + len(chunk)].astype(np.float64)
        first = first + weights @ chunk.astype(np.float64)
        second = second + weights @ chunk.astype(np.float64) ** 2
        row += len(chunk)
    mean = first / counts.sum()
    # Cosines are at most 1, so the difference of squares loses nothing that the floor would keep.
    std = np.sqrt(np.maximum(second / counts.sum() - mean**2, 0.0))
    return torch.from_numpy(np.float32(mean)), torch.from_numpy(np.float32(std)).clamp(min=_STD_FLOOR)


@dataclass(frozen=True, eq=False)
class Centroids:
    """N unit vectors C of docs/method.md, with all that is needed to score a prompt the same way again.

    Compare two of them by `fingerprint`.
    """

    vectors: torch.Tensor
    """Cluster centers, unit rows, float32 (N, d)."""
    mean: torch.Tensor
    """Mean of the training scores per cluster, float32 (N,)."""
    std: torch.Tensor
    """Standard deviation of the scores, never 0, float32 (N,)."""
    embedder: EmbedderIdentity
    data_fingerprint: str
    """sha256 of the distinct prompts that the centers were fitted on."""
    seed: int
    num_fitted: int
    """How many embeddings the centers were fitted on."""

    @property
    def num_clusters(self) -> int:
        """Number of clusters, N."""
        return self.vectors.shape[0]

    @property
    def fingerprint(self) -> str:
        """16 hex digits that say whether two centroids give the same scores for the same reasons.

        The embedder's name and revision are left out: they say where it was found, not what it is.
        """
        metadata = self._metadata()
        for place in ("name", "revision"):
            del metadata["embedder"][place]
        digest = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
        for tensor in (self.vectors, self.mean, self.std):
            digest.update(tensor_digest(tensor))
        return digest.hexdigest()[:16]

    def score(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Raw cosines c(x) = C e(x) of unit rows (batch, d), as float32 (batch, N)."""
        if embeddings.ndim != 2 or embeddings.shape[1] != self.vectors.shape[1]:
            raise ValueError(
                f"embeddings of shape {tuple(embeddings.shape)} cannot be scored by centroids of dimension "
                f"{self.vectors.shape[1]}; use the embedder they were made with: {self.embedder}"
            )
        return cosine_scores(embeddings.float(), self.vectors.to(embeddings.device))

    def check_embedder(self, identity: EmbedderIdentity) -> None:
        """Raise ValueError unless `identity` is the embedder that these centroids were made with."""
        if not self.embedder.matches(identity):
            raise ValueError(
                f"the centroids were made with another embedder: {self.embedder.difference(identity)}. "
                f"Made with: {self.embedder}; given: {identity}. Use the former, or fit new centroids"
            )

    def save(self, folder: str | Path) -> Path:
        """Write `folder`/centroids.safetensors, whole or not at all; return its path."""
        from safetensors.torch import save_file

        path = Path(folder) / CENTROIDS_FILE
        # One JSON value, since safetensors keeps no order of header keys: equal content gives equal bytes.
        header = json.dumps(self._metadata() | {"fingerprint": self.fingerprint}, sort_keys=True)
        tensors = {"vectors": self.vectors, "mean": self.mean, "std": self.std}
        with atomic_path(path) as temporary:
            save_file({k: v.contiguous() for k, v in tensors.items()}, temporary, {_HEADER_KEY: header})
        return path

    @classmethod
    def load(cls, path: str | Path) -> Centroids:
        """Read centroids from a file, or from a folder that has a centroids.safetensors.

        Raises FileNotFoundError if there is none and ValueError if it is damaged or something else.
        """
        from safetensors import SafetensorError, safe_open

        path = centroids_file(path)
        try:
            with safe_open(path, framework="pt") as file:
                metadata = json.loads((file.metadata() or {})[_HEADER_KEY])
                tensors = {name: file.get_tensor(name) for name in ("vectors", "mean", "std")}
            fingerprint = metadata.pop("fingerprint")
            embedder = EmbedderIdentity(**metadata.pop("embedder"))
            centroids = cls(**tensors, embedder=embedder, **metadata)
        except (SafetensorError, KeyError, TypeError, json.JSONDecodeError) as error:
            raise ValueError(
                f"{path} is damaged or not a centroids file ({type(error).__name__}: {error}); "
                "copy it again from where it was saved, or fit new centroids"
            ) from error
        if centroids.fingerprint != fingerprint:
            raise ValueError(
                f"{path} is damaged: its content has fingerprint {centroids.fingerprint}, its header says "
                f"{fingerprint}; copy it again from where it was saved, or fit new centroids"
            )
        return centroids

    def _metadata(self) -> dict:
        return {
            "embedder": asdict(self.embedder),
            "data_fingerprint": self.data_fingerprint,
            "seed": self.seed,
            "num_fitted": self.num_fitted,
        }


def placeholder_centroids(num_clusters: int) -> Centroids:
    """Centroids that were made of nothing, for a model of which only sizes or speed matter."""
    identity = EmbedderIdentity("none", "", "0" * 16, "mean", "", num_clusters)
    zeros, ones = torch.zeros(num_clusters), torch.ones(num_clusters)
    return Centroids(torch.eye(num_clusters), zeros, ones, identity, "none", seed=0, num_fitted=1)
