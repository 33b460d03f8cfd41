"""Writing files so that a reader never sees half of one, and where this package keeps what it makes once."""

from __future__ import annotations

import json
import os
import shutil
import stat
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

ANOTHER_CACHE = "set the environment variable TREX_DS_CACHE to a folder that can be written to"


def cache_folder() -> Path:
    """Folder of converted models and prepared data: $TREX_DS_CACHE, else trex_ds in the user's cache folder.

    Raises:
        ValueError: if neither is known.
    """
    if given := os.environ.get("TREX_DS_CACHE"):
        return Path(given)
    try:
        root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    except RuntimeError as error:  # no HOME, and no entry for the user in the password database
        raise ValueError(f"this user has no home folder to keep a cache in; {ANOTHER_CACHE}") from error
    return Path(root) / "trex_ds"


def ensure_home() -> None:
    """Let libraries take the cache folder for the home of a user who has none; MLflow cannot be imported otherwise."""
    try:
        Path.home()
    except RuntimeError:
        with suppress(ValueError):
            os.environ["HOME"] = str(cache_folder().absolute())


def make_writable(folder: Path) -> None:
    """Make `folder`, and write to it once.

    Raises:
        OSError: if either cannot be done.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
        pass


def make_in_cache(folder: Path) -> Path:
    """Make `folder`, which lies in the cache folder, and return it.

    Raises:
        ValueError: if it cannot be written to.
    """
    try:
        make_writable(folder)
    except OSError as error:
        raise ValueError(f"the cache folder {folder} cannot be written to: {error}; {ANOTHER_CACHE}") from error
    return folder


@contextmanager
def atomic_path(target: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `target`; on success it is renamed to `target`.

    Works for a file and for a folder (the caller creates either at the yielded path). An older
    `target` is replaced. On an exception the temporary path is removed and `target` is untouched.
    Replacing a folder takes two renames: between them `target` is missing, never half written.
    Who may read the result is up to the umask, whatever wrote it.
    """
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        yield temporary
        open_to_readers(temporary)
        if target.is_dir() or (temporary.is_dir() and target.exists()):
            _swap(temporary, target)
        else:
            os.replace(temporary, target)
    finally:
        _remove(temporary)


def write_json(target: str | Path, content: Any) -> None:
    """Write `content` as JSON that a reader never sees half of."""
    with atomic_path(target) as temporary:
        text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
        # Half of a surrogate pair, as in an odd file name, cannot be encoded; its escape is JSON too.
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def open_to_readers(path: Path) -> None:
    """Let everybody read `path`, and all below it, whom the umask lets read a new file.

    Some libraries, such as safetensors, write files that nobody but their owner can read. No right is taken away.
    """
    usual = _mode_of_a_new_file(path.parent)
    for found in (path, *path.rglob("*")):
        if found.is_symlink():
            continue
        mode = stat.S_IMODE(found.stat().st_mode)
        wanted = mode | usual | ((usual & 0o444) >> 2 if found.is_dir() else 0)
        if wanted != mode:
            with suppress(PermissionError):  # a file system that keeps no modes of its own
                found.chmod(wanted)


def _mode_of_a_new_file(folder: Path) -> int:
    # Tried rather than computed: the umask cannot be read without setting it for all threads, and a folder may
    # have rules of its own.
    probe = folder / f".{uuid.uuid4().hex[:8]}.tmp"
    try:
        os.close(os.open(probe, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        return stat.S_IMODE(probe.stat().st_mode)
    finally:
        probe.unlink(missing_ok=True)


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
