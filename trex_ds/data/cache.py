"""Folders that are made once: by one process, whole or not at all, found again by what they were made from."""

from __future__ import annotations

import hashlib
import json
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from trex_ds.distributed import PeerError, local_rank, on_rank_zero
from trex_ds.files import atomic_path

_POLL_SECONDS = 0.2


def content_key(parts: Any) -> str:
    """24 hex digits that change with any part of the JSON data `parts`."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:24]


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
                    raise PeerError(f"the node's first process failed: {failure.read_text()}")
                time.sleep(_POLL_SECONDS)
            return folder
        from filelock import FileLock

        folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(f"{folder}.lock"):
                if not folder.is_dir():
                    with atomic_path(folder) as temporary:
                        temporary.mkdir()
                        make(temporary)
        except Exception as error:
            with atomic_path(failure) as temporary:
                temporary.write_text(f"{type(error).__name__}: {error}")
            raise
        return folder
