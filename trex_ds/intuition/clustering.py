"""The intuition pass: embed all texts over all ranks, cluster on rank 0, score every text."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from trex_ds.distributed import agreed, on_rank_zero, rank, sum_over_ranks
from trex_ds.intuition.centroids import Centroids, cosine_scores, score_statistics
from trex_ds.intuition.embedder import Embedder
from trex_ds.intuition.scores import IntuitionResult, ScoreWriter, text_digests
from trex_ds.intuition.sharding import ShardedEmbedder
from trex_ds.seeding import seeded_order

# Texts whose embedding an interrupted pass loses at most, and what is in memory at a time.
PIECE = 4096


def intuition_pass(
    train: Sequence[str],
    others: Sequence[str],
    embedder: Embedder,
    num_clusters: int,
    *,
    folder: Path,
    batch_size: int,
    max_embeddings: int,
    seed: int,
    centroids: Centroids | None = None,
    train_digests: np.ndarray | None = None,
) -> IntuitionResult:
    """Fit `num_clusters` centroids on the training texts and score all texts with them.

    A collective: every rank calls it with the same arguments. Each distinct text is embedded once, by
    one rank. What a batch holds does not depend on the number of ranks, so neither do the scores, to
    the bit, on ranks with equal hardware and threads. Rank 0 keeps at most `max_embeddings` embeddings
    and one batch a rank; of the others only the scores are kept, in `folder`. The centroids' mean and
    std are taken over all training scores, repeated texts counted as often as they occur.

    A pass that was interrupted goes on in its `folder`, which must be used for these arguments alone.
    With `centroids` given nothing is fitted.

    Args:
        train: training texts; read a few thousand at a time.
        others: texts to score only.
        embedder: the same on every rank.
        num_clusters: N.
        folder: shared by the ranks of a node at least.
        batch_size: texts per forward pass of the embedder.
        max_embeddings: on how many texts the clusters are fitted at most.
        seed: of the sample of texts and of the clustering.
        centroids: to use instead of fitting new ones.
        train_digests: `text_digests(train)`, if it is known already.

    Raises:
        ValueError: too few distinct texts for `num_clusters`, or centroids that do not fit the
            embedder or `num_clusters`; on every rank.
        RuntimeError: the embedder failed on some rank, or the ranks' arguments differ; on every rank.
    """
    if train_digests is None:
        train_digests = text_digests(train)
    other_digests = text_digests(others)
    _check_ranks_agree(
        {
            "training texts": _fingerprint(train_digests),
            "other texts": _fingerprint(other_digests),
            "embedder weights": embedder.identity.weights,
            "given centroids": centroids and centroids.fingerprint,
            "settings": (num_clusters, batch_size, max_embeddings, seed),
        }
    )
    assert len(train) or len(others), "no texts"
    digests, first = np.unique(np.concatenate([train_digests, other_digests]), return_index=True)

    def text(row: int) -> str:
        position = int(first[row])
        return train[position] if position < len(train) else others[position - len(train)]

    sample: np.ndarray = np.zeros(0, np.int64)
    if centroids is None:
        sample = _draw_sample(
            digests, np.flatnonzero(first < len(train)), len(train), num_clusters, max_embeddings, seed
        )
    else:
        _check_reusable(centroids, embedder, num_clusters)
    rest = np.setdiff1d(np.arange(len(digests)), sample)
    rest = rest[np.argsort(first[rest])]  # in the order in which they lie on disk

    writer = ScoreWriter(folder)
    with ShardedEmbedder(embedder, batch_size, num_texts=len(digests)) as sharded:
        if centroids is None:
            texts = {row: text(row) for row in sample}
            sample = np.array(sorted(sample, key=lambda row: (len(texts[row]), texts[row])))
            ordered = [texts[row] for row in sample]
            vectors, sample_scores = _fit(sharded, ordered, num_clusters, seed, writer)
            fitted_on = hashlib.sha256("".join(f"{len(t)}:{t}" for t in ordered).encode()).hexdigest()
            del texts, ordered
        else:
            vectors, sample_scores = centroids.vectors, torch.zeros(0, num_clusters)
        missing = writer.missing(range(0, len(rest), PIECE))
        sharded.skip(len(rest) - sum(len(rest[start : start + PIECE]) for start in missing))
        for start in missing:
            rows = rest[start : start + PIECE]
            texts = {row: text(row) for row in rows}
            order = sorted(range(len(rows)), key=lambda i: (len(texts[rows[i]]), texts[rows[i]]))
            scores = torch.empty(len(rows), num_clusters)
            # Every row is set on one rank and zero on the others.
            scores[order] = sum_over_ranks(sharded.score([texts[rows[i]] for i in order], vectors))
            writer.write_piece(start, scores.numpy())

    def make_centroids() -> Centroids:
        counts = np.bincount(np.searchsorted(digests, train_digests), minlength=len(digests))
        mean, std = score_statistics(writer.chunks(), counts)
        return Centroids(vectors, mean, std, embedder.identity, fitted_on, seed=seed, num_fitted=len(sample))

    writer.finish(digests, sample, sample_scores.numpy(), rest, PIECE)
    if centroids is None:
        centroids = on_rank_zero(make_centroids)
    writer.complete(centroids)
    result = IntuitionResult.open(folder)
    assert result is not None
    return result


def spherical_kmeans(embeddings: torch.Tensor, num_clusters: int, seed: int) -> torch.Tensor:
    """Cluster unit rows (samples, d); unit centers (num_clusters, d), the largest cluster first."""
    from sklearn.cluster import MiniBatchKMeans
    from threadpoolctl import threadpool_limits

    kmeans = MiniBatchKMeans(num_clusters, n_init=10, random_state=seed)
    with threadpool_limits(1):  # the order of its sums, and so the centers, depends on the threads
        kmeans.fit(embeddings.numpy())
    sizes = torch.bincount(torch.from_numpy(kmeans.labels_), minlength=num_clusters)
    empty = int((sizes == 0).sum())
    if empty:
        warnings.warn(
            f"{empty} of {num_clusters} clusters are empty: the {len(embeddings)} embeddings are too much "
            "alike; use fewer clusters",
            stacklevel=2,
        )
    centers = torch.nn.functional.normalize(torch.from_numpy(kmeans.cluster_centers_), dim=1)
    return centers[sizes.argsort(descending=True, stable=True)]


def _check_ranks_agree(arguments: dict[str, Any]) -> None:
    expected = on_rank_zero(lambda: arguments)
    different = [name for name, value in arguments.items() if value != expected[name]]
    with agreed():
        if different:
            raise RuntimeError(f"rank {rank()} has other {', '.join(different)} than rank 0; give all ranks the same")


def _check_reusable(centroids: Centroids, embedder: Embedder, num_clusters: int) -> None:
    centroids.check_embedder(embedder.identity)
    if centroids.num_clusters != num_clusters:
        raise ValueError(
            f"the given centroids have {centroids.num_clusters} clusters, not {num_clusters}; "
            f"set the number of clusters to {centroids.num_clusters} or fit new centroids"
        )


def _draw_sample(
    digests: np.ndarray, candidates: np.ndarray, num_texts: int, num_clusters: int, max_embeddings: int, seed: int
) -> np.ndarray:
    """Choose at most `max_embeddings` of the rows `candidates`, whatever the order of the texts."""
    count = min(max_embeddings, len(candidates))
    if count < num_clusters:
        raise ValueError(
            f"{num_clusters} clusters need as many distinct training prompts, but there are {len(candidates)} "
            f"(of {num_texts} in all) and max_embeddings is {max_embeddings}; use fewer clusters, "
            "add training data or raise max_embeddings"
        )
    order = np.argsort(seeded_order(digests[candidates], seed), kind="stable")
    return candidates[order[:count]]


def _fingerprint(digests: np.ndarray) -> str:
    return hashlib.sha256(digests.tobytes()).hexdigest()


def _fit(
    sharded: ShardedEmbedder, sample: list[str], num_clusters: int, seed: int, writer: ScoreWriter
) -> tuple[torch.Tensor, torch.Tensor]:
    """The centers (N, d) and the sample's scores (len(sample), N), on every rank."""
    matrix = sharded.new_matrix(len(sample))
    for start in range(0, len(sample), PIECE):
        rows = slice(start, min(start + PIECE, len(sample)))
        kept = writer.load_sample(start)
        if kept is None:
            matrix[rows if rank() == 0 else slice(0)] = sharded.embed_on_rank_zero(sample[rows])
            writer.save_sample(start, matrix[rows])
        else:
            matrix[rows if rank() == 0 else slice(0)] = kept
            sharded.skip(rows.stop - rows.start)
    # Kept, because another machine that goes on with the pass might find slightly other centers.
    vectors = on_rank_zero(lambda: writer.keep_vectors(lambda: spherical_kmeans(matrix, num_clusters, seed)))
    return vectors, on_rank_zero(lambda: cosine_scores(matrix, vectors))
