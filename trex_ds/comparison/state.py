"""What is known of a run of a comparison, in a file of its folder: begun, finished or failed, and with what result."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from trex_ds.config import flatten
from trex_ds.files import write_json

STATE_FILE = "run.json"
MOST_ATTEMPTS = 2
Status = Literal["pending", "begun", "finished", "failed"]
# Where a run writes to; all else that differs makes another run of it.
_FREE = ("output_dir", "tracking.", "data.cache", "data.mirror", "training.timeout_minutes")


@dataclass(frozen=True)
class RunState:
    """The content of a run's file."""

    recipe: Mapping[str, Any]
    """The resolved recipe, and the number of ranks."""
    status: Status = "pending"
    attempts: int = 0
    """How often it was begun."""
    result: Mapping[str, Any] = field(default_factory=dict)
    """Result of a finished run."""
    error: str | None = None
    """Error of a failed run."""

    @property
    def interrupted(self) -> bool:
        """Whether the job ended during the run."""
        return self.status == "begun"


def read_state(folder: Path, recipe: Mapping[str, Any]) -> RunState:
    """The state of the run in `folder`; pending if there is none.

    Raises:
        ValueError: the folder holds something else, or a run of another recipe; names what differs.
    """
    file = folder / STATE_FILE
    if not file.is_file():
        if folder.is_dir() and any(folder.iterdir()):
            raise ValueError(
                f"{folder} holds files, but no {STATE_FILE} of a comparison's run; choose another output_dir"
            )
        return RunState(recipe)
    state = RunState(**json.loads(file.read_text(encoding="utf-8")))
    differing = _differences(state.recipe, recipe)
    if not differing:
        return replace(state, recipe=recipe)
    if state.status != "finished":
        return RunState(recipe)  # nothing of it is needed any more
    raise ValueError(
        f"{folder} holds a finished run with another {'; another '.join(differing)}. Runs of a "
        "comparison must be alike: change it back, choose another output_dir, or delete that folder"
    )


def write_state(folder: Path, state: RunState) -> None:
    """Write the file; the folder is made."""
    write_json(folder / STATE_FILE, asdict(state))


def begin(folder: Path, state: RunState) -> RunState:
    """Clear the folder of what an earlier attempt left, and note that the run is going on."""
    attempts = state.attempts if state.interrupted else 0
    begun = replace(state, status="begun", attempts=attempts + 1, error=None)
    write_state(folder, begun)
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != STATE_FILE:
            path.unlink()
    return begun


def _differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    before, after = flatten(dict(old)), flatten(json.loads(json.dumps(new)))
    return [
        f"{name} ({json.dumps(before.get(name))}, now {json.dumps(after.get(name))})"
        for name in dict.fromkeys([*before, *after])
        if before.get(name) != after.get(name) and not name.startswith(_FREE)
    ]
