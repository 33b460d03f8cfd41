"""The intuition pass: embed all prompts over all ranks, cluster on rank 0, score every prompt."""

from __future__ import annotations

import hashlib
import random
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import NonNegativeInt, PositiveInt

from trex_ds.config import section
from trex_ds.distributed import agree, on_rank_zero, rank, sum_over_ranks
from trex_ds.intuition.centroids import Centroids, cosine_scores, score_statistics
from trex_ds.intuition.embedder import EMBEDDED_MINILM, Embedder
from trex_ds.intuition.sharding import ShardedEmbedder


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
    """How many prompts the clusters are fitted on at most: the bound on rank 0's memory."""
    seed: NonNegativeInt = 0
    """Seed of the sample of prompts and of the clustering."""
    centroids: str | None = None
    """A folder or file with centroids to use instead of fitting new ones."""


@dataclass(frozen=True)
class IntuitionResult:
    """What the pass gives, equal on every rank."""

    centroids: Centroids
    train_scores: torch.Tensor
    """Raw cosines, float32 (len(train_prompts), N)."""
    evaluation_scores: torch.Tensor
    """Raw cosines, float32 (len(evaluation_prompts), N)."""


def intuition_pass(
    train_prompts: Sequence[str],
    evaluation_prompts: Sequence[str],
    embedder: Embedder,
    num_clusters: int,
    *,
    batch_size: int,
    max_embeddings: int,
    seed: int,
    centroids: Centroids | None = None,
) -> IntuitionResult:
    """Fit `num_clusters` centroids on the training prompts and score all prompts with them.

    A collective: every rank calls it with the same arguments. Each distinct prompt is embedded once,
    by one rank. What a batch holds does not depend on the number of ranks, so neither do the scores,
    to the bit, on ranks with equal hardware and threads. Rank 0 keeps at most `max_embeddings`
    embeddings and one batch a rank; of the others only the scores are kept. The centroids' mean and
    std are taken over all training scores, repeated prompts counted as often as they occur.

    With `centroids` given nothing is fitted.

    Raises:
        ValueError: too few distinct prompts for `num_clusters`, or centroids that do not fit the
            embedder or `num_clusters`; on every rank.
        RuntimeError: the embedder failed on some rank, or the ranks' arguments differ; on every rank.
    """
    _check_ranks_agree(
        {
            "training prompts": _fingerprint(train_prompts),
            "evaluation prompts": _fingerprint(evaluation_prompts),
            "embedder weights": embedder.identity.weights,
            "given centroids": centroids and centroids.fingerprint,
            "settings": (num_clusters, batch_size, max_embeddings, seed),
        }
    )
    if centroids is None:
        sample = _draw_sample(train_prompts, num_clusters, max_embeddings, seed)
    else:
        _check_reusable(centroids, embedder, num_clusters)
        sample = []
    rest = _by_length({*train_prompts, *evaluation_prompts} - set(sample))

    with ShardedEmbedder(embedder, batch_size, num_texts=len(sample) + len(rest)) as sharded:
        if centroids is None:
            vectors, sample_scores = _fit(sharded, sample, num_clusters, seed)
        else:
            vectors, sample_scores = centroids.vectors, torch.zeros(0, num_clusters)
        rest_scores = sharded.score(rest, vectors)
    # Every row is set on one rank and zero on the others.
    scores = sum_over_ranks(torch.cat([sample_scores, rest_scores]))

    row = {prompt: i for i, prompt in enumerate([*sample, *rest])}
    train_scores = scores[[row[prompt] for prompt in train_prompts]]
    evaluation_scores = scores[[row[prompt] for prompt in evaluation_prompts]]
    if centroids is None:

        def make_centroids() -> Centroids:
            mean, std = score_statistics(train_scores)
            return Centroids(
                vectors, mean, std, embedder.identity, _fingerprint(sample), seed=seed, num_fitted=len(sample)
            )

        centroids = on_rank_zero(make_centroids)
    return IntuitionResult(centroids, train_scores, evaluation_scores)


def spherical_kmeans(embeddings: torch.Tensor, num_clusters: int, seed: int) -> torch.Tensor:
    """Cluster unit rows (samples, d); unit centres (num_clusters, d), the largest cluster first."""
    from sklearn.cluster import MiniBatchKMeans
    from threadpoolctl import threadpool_limits

    kmeans = MiniBatchKMeans(num_clusters, n_init=10, random_state=seed)
    with threadpool_limits(1):  # the order of its sums, and so the centres, depends on the threads
        kmeans.fit(embeddings.numpy())
    sizes = torch.bincount(torch.from_numpy(kmeans.labels_), minlength=num_clusters)
    empty = int((sizes == 0).sum())
    if empty:
        warnings.warn(
            f"{empty} of {num_clusters} clusters are empty: the {len(embeddings)} embeddings are too much "
            "alike; use fewer clusters",
            stacklevel=2,
        )
    centres = torch.nn.functional.normalize(torch.from_numpy(kmeans.cluster_centers_), dim=1)
    return centres[sizes.argsort(descending=True, stable=True)]


def _check_ranks_agree(arguments: dict[str, Any]) -> None:
    expected = on_rank_zero(lambda: arguments)
    different = [name for name, value in arguments.items() if value != expected[name]]
    error = f"rank {rank()} has other {', '.join(different)} than rank 0; give all ranks the same"
    agree(RuntimeError(error) if different else None)


def _check_reusable(centroids: Centroids, embedder: Embedder, num_clusters: int) -> None:
    centroids.check_embedder(embedder.identity)
    if centroids.num_clusters != num_clusters:
        raise ValueError(
            f"the given centroids have {centroids.num_clusters} clusters, not {num_clusters}; "
            f"set the number of clusters to {centroids.num_clusters} or fit new centroids"
        )


def _draw_sample(prompts: Sequence[str], num_clusters: int, max_embeddings: int, seed: int) -> list[str]:
    """At most `max_embeddings` distinct prompts; which ones does not depend on the order of `prompts`."""
    distinct = _by_length(prompts)
    sample = random.Random(seed).sample(distinct, min(max_embeddings, len(distinct)))
    if len(sample) < num_clusters:
        raise ValueError(
            f"{num_clusters} clusters need as many distinct training prompts, but there are {len(distinct)} "
            f"(of {len(prompts)} in all) and max_embeddings is {max_embeddings}; use fewer clusters, "
            "add training data or raise max_embeddings"
        )
    return _by_length(sample)


def _by_length(texts: Iterable[str]) -> list[str]:
    """Distinct texts, short ones first, so that a batch holds texts of like length and little padding."""
    return sorted(set(texts), key=lambda text: (len(text), text))


def _fingerprint(texts: Sequence[str]) -> str:
    digest = hashlib.sha256()
    for text in texts:
        encoded = text.encode()
        digest.update(f"{len(encoded)}:".encode() + encoded)
    return digest.hexdigest()


def _fit(
    sharded: ShardedEmbedder, sample: list[str], num_clusters: int, seed: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The centres (N, d) on every rank, and the sample's scores (len(sample), N), zero but on rank 0."""
    matrix = sharded.embed_on_rank_zero(sample)
    vectors = on_rank_zero(lambda: spherical_kmeans(matrix, num_clusters, seed))
    scores = cosine_scores(matrix, vectors) if rank() == 0 else torch.zeros(len(sample), num_clusters)
    return vectors, scores
