"""What comes of every task of reasoning-gym, as JSON: why it is refused or null, and a digest of what it makes."""

from __future__ import annotations

import hashlib
import json
import sys

import reasoning_gym
from reasoning_gym.factory import DATASETS

from tests.tasks.reading import problems_of, read
from trex_ds.tasks.config import TaskConfig

ENTRIES = 12
# Seconds each.
FEW = {"knight_swap": 2, "sokoban": 2, "futoshiki": 3, "zebra_puzzles": 4}


def outcome(name: str) -> str | None:
    if problems := problems_of(TaskConfig(f"gym:{name}")):
        return problems[0]
    try:
        read(f"gym:{name}", train_examples=1, evaluation_examples=1)
    except ValueError as error:
        return str(error)
    return None


def digest(name: str) -> str | None:
    try:
        dataset = reasoning_gym.create_dataset(name, seed=7, size=ENTRIES)
    except AssertionError:  # needs options
        return None
    entries = (dataset[i] for i in range(FEW.get(name, ENTRIES)))
    text = json.dumps([(entry["question"], entry["answer"]) for entry in entries])
    return hashlib.sha256(text.encode()).hexdigest()


def main() -> None:
    found = {name: [digest(name), outcome(name) if "outcomes" in sys.argv else None] for name in DATASETS}
    print("\n" + json.dumps(found))


if __name__ == "__main__":
    main()
