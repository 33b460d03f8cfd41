"""The stage of intuition: centroids, and the scores of all prompts, kept in the cache folder."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch

from trex_ds.data.cache import check_writable, content_key, one_job_at_a_time
from trex_ds.data.store import Store, TrainTexts
from trex_ds.distributed import on_rank_zero
from trex_ds.intuition.centroids import Centroids
from trex_ds.intuition.clustering import intuition_pass
from trex_ds.intuition.config import IntuitionConfig
from trex_ds.intuition.embedder import SentenceTransformerEmbedder
from trex_ds.intuition.scores import IntuitionResult, text_digests
from trex_ds.preparation.stages import Stage, stage


def score_texts(
    config: IntuitionConfig,
    num_clusters: int,
    store: Store,
    folders: Sequence[Path],
    contexts: Sequence[str],
    cache: Path,
    device: torch.device,
    stages: list[Stage],
    *,
    resumed: Centroids | None = None,
) -> IntuitionResult:
    """Score the prompts of all examples, or find the scores in the cache; a collective.

    Args:
        config: the embedder and the clustering.
        num_clusters: N.
        store: all examples.
        folders: of the recipe's entries, whose names say what the store holds.
        contexts: texts of the examples that are asked; those of the store's training examples are scored anyway.
        cache: the folder of prepared data.
        device: where the embedder runs.
        stages: to which this stage is added.
        resumed: the centroids that a resumed job's adapter was trained with so far; it keeps them.

    Raises:
        ValueError: the embedder cannot be used, or the centroids do not fit it.
    """
    digests = text_digests(contexts)
    new = ~np.isin(digests, store.digests)
    # Only these, so that another choice of held-out examples asks for the same pass.
    contexts, digests = [text for text, is_new in zip(contexts, new, strict=True) if is_new], digests[new]
    given = Centroids.load(config.centroids) if config.centroids else None
    entries = [folder.name for folder in folders]
    with stage("intuition", stages) as counts:
        counts["items"] = len(store.train) + len(contexts)
        # A resumed job's centroids were fitted by the first job, whose scores are kept as those of `given`.
        candidates = [given] if resumed is None else [given, resumed]
        places = [_place(cache, config, num_clusters, entries, digests, centroids) for centroids in candidates]
        for place in places:
            result = IntuitionResult.open(place)
            if result is not None and (resumed is None or result.centroids.fingerprint == resumed.fingerprint):
                return result
        check_writable(cache / "intuition", needed=True)
        with one_job_at_a_time(places[-1]):
            result = IntuitionResult.open(places[-1])  # if another job has made it meanwhile
            if result is None:
                counts["made"] += 1
                result = _compute(config, num_clusters, store, contexts, places[-1], device, resumed or given)
        return result


def resumed_centroids(output: Path) -> Centroids:
    """Read the centroids that a resumed job's adapter was trained with so far.

    Raises:
        ValueError: if there are none in the run's folder.
    """
    try:
        return Centroids.load(output)
    except FileNotFoundError as error:
        raise ValueError(
            f"training.resume: {output} has a checkpoint but no centroids.safetensors, which its adapter "
            "was trained with; copy it there, or start again in another output_dir"
        ) from error


def _place(
    cache: Path,
    config: IntuitionConfig,
    num_clusters: int,
    entries: Sequence[str],
    digests: np.ndarray,
    centroids: Centroids | None,
) -> Path:
    """The folder of the scores; its name changes with all that they depend on."""
    parts = [
        *(1, entries, np.unique(digests).tolist(), config.revision),
        *(config.embedder, _embedder_content(config.embedder), config.prompt, config.batch_size),
        *(config.max_embeddings, config.seed, num_clusters, centroids and centroids.fingerprint),
    ]
    return cache / "intuition" / on_rank_zero(partial(content_key, parts))


def _compute(
    config: IntuitionConfig,
    num_clusters: int,
    store: Store,
    contexts: Sequence[str],
    folder: Path,
    device: torch.device,
    centroids: Centroids | None,
) -> IntuitionResult:
    try:
        embedder = SentenceTransformerEmbedder(config.embedder, config.revision, config.prompt, device=str(device))
        result = intuition_pass(
            TrainTexts(store),
            contexts,
            embedder,
            num_clusters,
            folder=folder,
            batch_size=config.batch_size,
            max_embeddings=config.max_embeddings,
            seed=config.seed,
            centroids=centroids,
            train_digests=store.digests,
        )
    except (ValueError, FileNotFoundError) as error:
        raise ValueError(f"intuition: {error}") from error
    del embedder
    gc.collect()
    return result


def _embedder_content(name: str) -> str:
    """What an embedder in a folder consists of: names, sizes and times of its files; "" for one from elsewhere."""
    folder = Path(name)
    if not folder.is_dir():
        return ""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return content_key([[str(f.relative_to(folder)), f.stat().st_size, f.stat().st_mtime_ns] for f in files])
