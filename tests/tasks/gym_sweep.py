"""What comes of every task of reasoning-gym, as JSON: why it is refused or null, and a digest of what it makes."""

from __future__ import annotations

import hashlib
import json
import time

from reasoning_gym.factory import DATASETS

from tests.tasks.reading import read
from trex_ds.tasks import TaskConfig


def outcome(name: str) -> tuple[str | None, str]:
    problems = TaskConfig(f"gym:{name}").problems()
    if problems:
        return problems[0], ""
    try:
        made = read(f"gym:{name}", train_examples=2, evaluation_examples=2)
    except ValueError as error:
        return str(error), ""
    text = json.dumps([(example.prompt, example.answer) for example in made.train + made.evaluation])
    return None, hashlib.sha256(text.encode()).hexdigest()


def main() -> None:
    found = {}
    for name in DATASETS:
        started = time.perf_counter()
        found[name] = (*outcome(name), round(time.perf_counter() - started, 2))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
