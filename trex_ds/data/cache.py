"""Folders that are made once: by one process, whole or not at all, found again by what they were made from."""

from __future__ import annotations

import hashlib
import json
import logging
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from trex_ds.distributed import PeerError, agreed, local_rank, on_rank_zero, rank
from trex_ds.files import atomic_path, make_writable

log = logging.getLogger(__name__)

_POLL_SECONDS = 0.2


def content_key(parts: Any) -> str:
    """24 hex digits that change with any part of the JSON data `parts`."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:24]


def check_writable(folder: Path, needed: bool) -> None:
    """Make `folder` and try whether this node can write to it, if that is `needed`; a collective.

    Raises:
        ValueError: it cannot; on the other ranks a PeerError.
    """
    with agreed():
        if needed and local_rank() == 0:
            try:
                make_writable(folder)
            except OSError as problem:
                raise ValueError(
                    f"data.cache: {folder} cannot be written to, and not all data is prepared in it: {problem}; name "
                    "another folder (or set the environment variable TREX_DS_CACHE), or prepare the data where it can"
                ) from problem


@contextmanager
def one_job_at_a_time(folder: Path) -> Iterator[None]:
    """Let no other job into the same block for `folder`; a collective.

    A job that waits does so outside collectives, so that no communication timeout limits the wait.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(f"{folder}.lock")

    def taken() -> bool:
        folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return False
        return True

    waiting = False
    while not on_rank_zero(taken):
        if not waiting and rank() == 0:
            log.info("another job is making %s; waiting for it", folder)
        waiting = True
        time.sleep(_POLL_SECONDS)
    try:
        yield
    finally:
        lock.release()


class Builder:
    """Makes folders for all processes of a job, and beside other jobs that want the same ones.

    The first process of each node builds; the others look for the folder, and hold no collective
    meanwhile, so that no communication timeout limits how long a build may take. Made on all ranks
    together.
    """

    def __init__(self) -> None:
        self._job = on_rank_zero(lambda: uuid.uuid4().hex)
        self._builds = local_rank() == 0

    def build(self, folder: Path, make: Callable[[Path], None]) -> Path:
        """`folder`; if it is not there, `make(temporary folder)` fills it first.

        Raises:
            PeerError: the node's building process failed; quotes its error.
        """
        failure = folder.with_name(f"{folder.name}.failed-{self._job}")
        if not self._builds:
            while not folder.is_dir():
                if failure.is_file():
                    raise PeerError(f"the node's first process failed: {failure.read_text(encoding='utf-8')}")
                time.sleep(_POLL_SECONDS)
            return folder
        if folder.is_dir():
            return folder  # without a lock, which a cache that is mounted for reading only refuses
        from filelock import FileLock

        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{folder}.lock"):
                if not folder.is_dir():
                    with atomic_path(folder) as temporary:
                        temporary.mkdir()
                        make(temporary)
        except Exception as error:
            with atomic_path(failure) as temporary:
                temporary.write_text(f"{type(error).__name__}: {error}", encoding="utf-8")
            raise
        return folder
