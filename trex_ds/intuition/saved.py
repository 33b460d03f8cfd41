"""Saved centroids as far as they can be told without torch."""

from __future__ import annotations

from pathlib import Path

from trex_ds.adapter_folder import CENTROIDS_FILE


def centroids_file(path: str | Path) -> Path:
    """Find the file of centroids: `path` itself, or the one in the folder `path`.

    Raises:
        FileNotFoundError: if there is none.
    """
    path = Path(path)
    if path.is_dir():
        path = path / CENTROIDS_FILE
    if not path.is_file():
        raise FileNotFoundError(
            f"no centroids at {path}; give an adapter's folder or its {CENTROIDS_FILE}, "
            "or fit new centroids by leaving intuition.centroids unset"
        )
    return path


def saved_num_clusters(file: Path) -> int | None:
    """Read N, the number of clusters, from the header of a file of centroids; None if it is no such file."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="np") as tensors:
            return tensors.get_slice("vectors").get_shape()[0]
    except SafetensorError:
        return None
