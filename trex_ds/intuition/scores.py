"""Intuition scores on disk: written piece by piece by the pass, looked up by the digest of a text."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from trex_ds.distributed import agreed, local_rank, on_rank_zero, rank, sum_over_ranks, world_size
from trex_ds.files import atomic_path
from trex_ds.intuition.centroids import Centroids
from trex_ds.seeding import text_digest

_DIGESTS, _SCORES, _VECTORS, _COMPLETE = "digests.npy", "scores.npy", "vectors.npy", "complete"
_CHUNK = 65_536


def text_digests(texts: Sequence[str]) -> np.ndarray:
    """Digests of `texts`, 64 bits each, int64."""
    return np.fromiter(map(text_digest, texts), np.int64, len(texts))


@dataclass(frozen=True)
class IntuitionResult:
    """Result of the pass, equal on every rank."""

    centroids: Centroids
    digests: np.ndarray
    """Digests of the distinct texts, int64, ascending."""
    scores: np.ndarray
    """Raw cosines of the texts, float32 (texts, N), memory-mapped."""

    @classmethod
    def open(cls, folder: Path) -> IntuitionResult | None:
        """The finished pass in `folder`, or None if it is not finished there; a collective with one answer."""
        finished = sum_over_ranks(torch.tensor(int((folder / _COMPLETE).is_file())))
        if int(finished) < world_size():
            return None
        scores = np.load(folder / _SCORES, mmap_mode="r")
        return cls(Centroids.load(folder), np.load(folder / _DIGESTS, mmap_mode="r"), scores)

    def rows(self, digests: np.ndarray) -> np.ndarray:
        """Positions of the scores of texts with these digests, int64.

        Raises:
            KeyError: a text that the pass has not seen.
        """
        rows: np.ndarray = np.asarray(np.searchsorted(self.digests, digests))
        if not np.all(self.digests[np.minimum(rows, len(self.digests) - 1)] == digests):
            raise KeyError("a text has no intuition scores: the pass has not seen it")
        return rows

    def of(self, texts: Sequence[str]) -> torch.Tensor:
        """Raw cosines of `texts`, float32 (len(texts), N)."""
        return torch.from_numpy(np.array(self.scores[self.rows(text_digests(texts))]))


class ScoreWriter:
    """The files of a pass. The first rank of each node writes what all have, rank 0 what it alone has.

    Nodes that share the folder write the same content to the same names, each name by a rename.
    """

    def __init__(self, folder: Path):
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def save_sample(self, start: int, embeddings: torch.Tensor) -> None:
        """Keep rank 0's embeddings of a piece of the sample."""
        if rank() == 0:
            self._save(f"sample-{start}.npy", embeddings.numpy())

    def load_sample(self, start: int) -> torch.Tensor | None:
        """What `save_sample` kept: on rank 0 the embeddings, elsewhere an empty tensor; None everywhere if nothing."""
        file = self._folder / f"sample-{start}.npy"
        if not on_rank_zero(file.is_file):
            return None
        return torch.from_numpy(np.load(file)) if rank() == 0 else torch.empty(0)

    def keep_vectors(self, fit: Callable[[], torch.Tensor]) -> torch.Tensor:
        """The centers that an interrupted pass has fitted already, else what `fit` gives; on rank 0 only."""
        if not (self._folder / _VECTORS).is_file():
            self._save(_VECTORS, fit().numpy())
        return torch.from_numpy(np.load(self._folder / _VECTORS))

    def missing(self, starts: Iterable[int]) -> list[int]:
        """Pieces of scores that some rank cannot find, the same on every rank."""
        starts = list(starts)
        found = torch.tensor([int(self._piece(start).is_file()) for start in starts], dtype=torch.int64)
        counts = sum_over_ranks(found).tolist()
        return [start for start, count in zip(starts, counts, strict=True) if count < world_size()]

    def write_piece(self, start: int, scores: np.ndarray) -> None:
        """Write the scores (texts, N) of the piece that begins at `start`, which every rank has."""
        if local_rank() == 0:
            self._save(self._piece(start).name, scores)

    def finish(
        self, digests: np.ndarray, sample: np.ndarray, sample_scores: np.ndarray, rest: np.ndarray, size: int
    ) -> None:
        """Put the sample's scores and the pieces together, in the order of `digests`; a collective."""
        with agreed():
            if local_rank() == 0:
                self._save(_DIGESTS, digests)
                with atomic_path(self._folder / _SCORES) as temporary:
                    shape = (len(digests), sample_scores.shape[1])
                    whole = np.lib.format.open_memmap(temporary, "w+", np.float32, shape)
                    whole[sample] = sample_scores
                    for start in range(0, len(rest), size):
                        whole[rest[start : start + size]] = np.load(self._piece(start))
                    whole.flush()

    def chunks(self) -> Iterator[np.ndarray]:
        """The scores that `finish` has put together, some rows at a time."""
        scores = np.load(self._folder / _SCORES, mmap_mode="r")
        for start in range(0, len(scores), _CHUNK):
            yield scores[start : start + _CHUNK]

    def complete(self, centroids: Centroids) -> None:
        """Write the centroids, mark the pass as finished and remove the pieces; a collective."""
        with agreed():
            if local_rank() == 0:
                centroids.save(self._folder)
                (self._folder / _COMPLETE).touch()
                for piece in (*self._folder.glob("sample-*.npy"), *self._folder.glob("scores-*.npy")):
                    piece.unlink(missing_ok=True)

    def _piece(self, start: int) -> Path:
        return self._folder / f"scores-{start}.npy"

    def _save(self, name: str, array: np.ndarray) -> None:
        with atomic_path(self._folder / name) as temporary, temporary.open("wb") as stream:
            np.save(stream, array)
