"""A new SQLite store, made once and whole."""

from __future__ import annotations

from pathlib import Path

from trex_ds.files import atomic_path


def make_store(file: Path) -> None:
    """Make MLflow's database at `file` if it is not there; of several jobs one makes it and the others wait.

    MLflow would make its tables one by one in place: a second job finds half of them, and a job that is killed
    leaves half of them for good.
    """
    from filelock import FileLock
    from mlflow import MlflowClient

    file = file.resolve()
    file.parent.mkdir(parents=True, exist_ok=True)
    if _is_made(file):
        return  # without a lock, which a folder that cannot be written to refuses
    with FileLock(file.with_name(f".{file.name}.lock")):
        if not _is_made(file):
            with atomic_path(file) as temporary:
                MlflowClient(f"sqlite:///{temporary}").search_experiments(max_results=1)


def _is_made(file: Path) -> bool:
    return file.is_file() and file.stat().st_size > 0
