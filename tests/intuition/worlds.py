"""The intuition pass in worlds of one, two and three ranks, all in one launch of three processes."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.utils._python_dispatch import TorchDispatchMode

from tests.intuition.fakes import DIMENSION, FakeEmbedder, planted_prompts
from trex_ds.intuition.clustering import intuition_pass

WORLD_SIZES = (1, 2, 3)
NUM_CLUSTERS = 5
BATCH_SIZE = 4
MAX_EMBEDDINGS = 50
TRAIN = planted_prompts({"sums": 31, "cities": 23, "verbs": 19, "rivers": 11, "logic": 7}) + ["sums twice"] * 3
EVALUATION = [*planted_prompts({"sums": 3, "chess": 14}), "sums twice"]
SETTINGS: dict[str, Any] = {"batch_size": BATCH_SIZE, "max_embeddings": MAX_EMBEDDINGS, "seed": 3}


class LargestMatrix(TorchDispatchMode):
    """Records the most rows of any tensor of embeddings that an operation makes."""

    rows = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and result.ndim == 2 and result.shape[1] == DIMENSION:
            self.rows = max(self.rows, len(result))
        return result


def fit(folder: Path) -> dict[str, Any]:
    embedder = FakeEmbedder()
    with LargestMatrix() as largest:
        result = intuition_pass(TRAIN, EVALUATION, embedder, NUM_CLUSTERS, folder=folder / "fit", **SETTINGS)
    given = {**SETTINGS, "centroids": result.centroids}
    reused = intuition_pass(TRAIN, EVALUATION, FakeEmbedder(), NUM_CLUSTERS, folder=folder / "reused", **given)
    return {
        "vectors": result.centroids.vectors,
        "mean": result.centroids.mean,
        "std": result.centroids.std,
        "train": result.of(TRAIN),
        "evaluation": result.of(EVALUATION),
        "reused train": reused.of(TRAIN),
        "reused evaluation": reused.of(EVALUATION),
        "fingerprint": result.centroids.fingerprint,
        "embedded": embedder.embedded,
        "most alive": embedder.most_alive,
        "largest matrix": largest.rows,
    }


def too_few_prompts(folder: Path) -> None:
    intuition_pass(["one", "two", "two"], [], FakeEmbedder(), NUM_CLUSTERS, folder=folder / "few", **SETTINGS)


def failing_embedder(folder: Path) -> None:
    """Only the last rank's embedder fails, on its third batch."""
    last = dist.get_rank() == dist.get_world_size() - 1
    embedder = FakeEmbedder(fail_after=2 if last else None)
    intuition_pass(TRAIN, EVALUATION, embedder, NUM_CLUSTERS, folder=folder / "failing", **SETTINGS)


def different_prompts(folder: Path) -> None:
    train = [*TRAIN, "sums only here"] if dist.get_rank() == 1 else TRAIN
    intuition_pass(train, EVALUATION, FakeEmbedder(), NUM_CLUSTERS, folder=folder / "different", **SETTINGS)


def _error_of(function: Callable[[Path], None], folder: Path) -> str | None:
    try:
        function(folder)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


def run(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    for size in WORLD_SIZES:
        if rank >= size:
            continue
        dist.init_process_group(
            "gloo",
            init_method=f"file://{folder}/store{size}",
            rank=rank,
            world_size=size,
            timeout=timedelta(seconds=240),
        )
        own = folder / f"world{size}"
        outcome = {
            "fit": fit(own),
            "too few": _error_of(too_few_prompts, own),
            "failing": _error_of(failing_embedder, own),
            "different": _error_of(different_prompts, own),
        }
        torch.save(outcome, folder / f"{size}-{rank}.pt")
        dist.destroy_process_group()
