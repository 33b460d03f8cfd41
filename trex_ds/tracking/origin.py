"""What a run's tags say of where it came from."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from trex_ds.version import __version__

_NOT_PART_OF_A_RESULT = ("output_dir", "tracking")


@cache
def git_commit() -> str:
    """The commit of the repository that this package lies in, with "-dirty" if it was changed since.

    Outside a repository the package's version, as "trex_ds 0.1.0".
    """
    folder = Path(__file__).parent
    command = ["git", "-C", str(folder), "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty"]
    try:
        # A package that is installed somewhere below another repository is no part of it.
        subprocess.run(["git", "-C", str(folder), "ls-files", "--error-unmatch", __file__], check=True, **_QUIET)
        return subprocess.run(command, check=True, **_QUIET).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return f"trex_ds {__version__}"


_QUIET: dict[str, Any] = {"capture_output": True, "encoding": "utf-8", "timeout": 30}


def recipe_hash(resolved: Mapping[str, Any]) -> str:
    """12 hexadecimal digits, equal for resolved recipes that differ in nothing but where results go."""
    kept = {name: value for name, value in resolved.items() if name not in _NOT_PART_OF_A_RESULT}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:12]
