"""All tasks of reasoning-gym: which can be used, why not the others, and whether docs/gym.md says the same."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from typing import Any

import pytest

from tests.training.jobs import ROOT
from trex_ds.tasks.sources.gym import DEPENDS_ON_HASH_SEED, RUNS_GENERATED_TEXT

WHY = {
    "runs the generated text as Python code": "Their scorers run",
    "so its scores mean nothing": "Their scorers give full marks",
    "for an answer, so there is nothing to train on": "They have no single",
    "Must specify at least one dataset": "It is made of others",
}
"""What an error says, and how the paragraph begins that lists the tasks with it."""


def sweep(hash_seed: str, *arguments: str) -> dict[str, Any]:
    command = [sys.executable, "-W", "ignore", "-m", "tests.tasks.gym_sweep", *arguments]
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    return sweep("0", "outcomes")


def listed() -> dict[str, set[str]]:
    """The names in docs/gym.md, by the first words of the paragraph that lists them."""
    paragraphs = (ROOT / "docs" / "gym.md").read_text(encoding="utf-8").split("\n\n")
    names = {text: set(re.findall(r"`(\w+)`", text.partition(":\n")[2])) for text in paragraphs}
    return {text[:60]: own for text, own in names.items() if own}


def names_of(start: str) -> set[str]:
    (own,) = [names for text, names in listed().items() if text.startswith(start)]
    return own


def test_every_task_is_usable_or_refused_for_a_reason_that_the_docs_have(found):
    usable = {name for name, (_, why) in found.items() if why is None}
    assert names_of("Ready to use") == usable - DEPENDS_ON_HASH_SEED
    assert names_of("With PYTHONHASHSEED") == usable & DEPENDS_ON_HASH_SEED == DEPENDS_ON_HASH_SEED
    refused = {name: why for name, (_, why) in found.items() if why is not None}
    for reason, start in WHY.items():
        assert {name for name, why in refused.items() if reason in why} == names_of(start)
    assert all(sum(reason in why for reason in WHY) == 1 for why in refused.values()), refused
    assert len(usable) > 80


def test_tasks_that_can_be_used_do_not_depend_on_the_hash_seed(found):
    other = sweep("1")
    depend = {name for name, (digest, _) in found.items() if digest != other[name][0]} - RUNS_GENERATED_TEXT
    assert depend <= DEPENDS_ON_HASH_SEED
    assert {"isomorphic_strings", "knight_swap", "ransom_note", "word_ladder"} <= depend
