"""Writing files so that a reader never sees half of one, and where this package keeps what it makes once."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def cache_folder() -> Path:
    """Where converted models and prepared data are kept: $TREX_DS_CACHE, else trex_ds in the user's cache folder."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("TREX_DS_CACHE") or Path(root) / "trex_ds")


@contextmanager
def atomic_path(target: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `target`; on success it is renamed to `target`.

    Works for a file and for a folder (the caller creates either at the yielded path). An older
    `target` is replaced. On an exception the temporary path is removed and `target` is untouched.
    Replacing a folder takes two renames: between them `target` is missing, never half written.
    """
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        yield temporary
        if target.is_dir() or (temporary.is_dir() and target.exists()):
            _swap(temporary, target)
        else:
            os.replace(temporary, target)
    finally:
        _remove(temporary)


def _swap(temporary: Path, target: Path) -> None:
    """Replace where rename() alone cannot: a non-empty folder, or a folder by a file and vice versa."""
    old = target.with_name(f"{temporary.name}.old")
    os.replace(target, old)
    try:
        os.replace(temporary, target)
    except OSError:
        os.replace(old, target)
        raise
    _remove(old)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
