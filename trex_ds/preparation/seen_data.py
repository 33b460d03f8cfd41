"""Record of what a job trains on, by content: a resumed job must train on the same."""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np

from trex_ds.data.config import DataConfig
from trex_ds.data.store import Store
from trex_ds.files import write_json

log = logging.getLogger(__name__)

_FILE = "data.json"


def describe_data(data: DataConfig, seed: int, store: Store, indices: np.ndarray) -> dict[str, Any]:
    """What an epoch has, as JSON data that changes with its examples, their tokens and their order.

    Args:
        data: whose packing decides the order.
        seed: of the recipe, which decides it too.
        store: all examples.
        indices: the training examples of an epoch, int64.
    """
    digests = store.row_digests()[indices]
    numbers = store.task_numbers[indices]
    tasks = {name: np.flatnonzero(numbers == number) for number, name in enumerate(store.counts)}
    return {
        "tasks": {
            name: {"rows": len(own), "content": _digest(np.sort(digests[own]))}
            for name, own in tasks.items()
            if len(own)
        },
        "order": _digest(digests),
        "seed": seed,
        "row of tokens": data.max_length if data.packing else None,
    }


def write_data(description: dict[str, Any], folder: Path) -> None:
    """Keep what `describe_data` gave beside the checkpoints of `folder`."""
    write_json(folder / _FILE, description)


def check_data(description: dict[str, Any], folder: Path) -> None:
    """Compare with what the checkpoints of `folder` were trained on so far.

    Raises:
        ValueError: it was something else; says what.
    """
    file = folder / _FILE
    if not file.is_file():
        log.warning("%s has no %s, so it is unknown whether the checkpoint saw the same data", folder, _FILE)
        return
    before = json.loads(file.read_text(encoding="utf-8"))
    if before == description:
        return
    old, new = before["tasks"], description["tasks"]
    found = [f"task {name!r} is new" for name in new if name not in old]
    found += [f"task {name!r} is gone" for name in old if name not in new]
    for name in new.keys() & old.keys():
        if new[name]["rows"] != old[name]["rows"]:
            found.append(f"task {name!r} has {new[name]['rows']} rows an epoch, and had {old[name]['rows']}")
        elif new[name] != old[name]:
            found.append(f"task {name!r} has other examples, or other tokens of them")
    for name in ("seed", "row of tokens"):
        if description[name] != before[name]:
            found.append(f"the {name} is {description[name]}, and was {before[name]}")
    raise ValueError(
        f"training.resume: the checkpoints of {folder} were trained on other data: "
        f"{'; '.join(sorted(found)) or 'the examples have another order'}. Go on with the same data, start again in "
        "another output_dir, or say that it is meant by training.resume_with_other_data: true"
    )


def _digest(numbers: np.ndarray) -> str:
    return hashlib.blake2b(numbers.tobytes(), digest_size=16).hexdigest()
