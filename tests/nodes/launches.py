"""A small job on several nodes: its recipe, the commands that start it, and what to wait for."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.nodes.namespaces import Nodes
from tests.training.jobs import ROOT, losses, write_recipe

BATCH = 12
"""Rows of a step, over all ranks: 1, 2, 3, 4 or 6."""
STEPS = 3
FOREVER = 100_000
"""Steps of a job that is to be interrupted."""


def write_job(folder: Path, ranks: int, **overrides: Any) -> Path:
    """A recipe in `folder` for `ranks` ranks, whose steps have the same rows for any number of ranks."""
    file = write_recipe(folder, training__micro_batch_size=BATCH // ranks, training__max_steps=STEPS, **overrides)
    # One epoch is to be longer than the steps, so that no rank repeats a row to fill its last batch.
    words = ("sun", "moon", "tree", "river", "cloud", "stone", "bread", "glass")
    rows = [
        {"prompt": f"spell {w} backwards {i}", "answer": w[::-1], "task": "spell"} for i in range(10) for w in words
    ]
    (folder / "tasks.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return file


def by_deepspeed(nodes: Nodes, number: int, slots: int, folder: Path, *arguments: str) -> list[str]:
    """`deepspeed` as it is started by hand on each node, without ssh."""
    hostfile = folder / "hostfile"
    hostfile.write_text("".join(f"{address} slots={slots}\n" for address in nodes.addresses))
    launcher = [
        sys.executable,
        str(Path(sys.executable).with_name("deepspeed")),
        "--hostfile",
        str(hostfile),
        "--no_ssh",
    ]
    place = [f"--node_rank={number}", f"--master_addr={nodes.addresses[0]}", "--master_port=29500"]
    return [*launcher, *place, "launch/train.py", *arguments]


def by_torchrun(nodes: Nodes, number: int, slots: int, folder: Path, *arguments: str) -> list[str]:
    """`torchrun` on each node."""
    counts = ["--nnodes", str(len(nodes.addresses)), "--nproc_per_node", str(slots), "--node_rank", str(number)]
    place = ["--master_addr", nodes.addresses[0], "--master_port", "29500"]
    return [sys.executable, "-m", "torch.distributed.run", *counts, *place, "launch/train.py", *arguments]


def start_all(nodes: Nodes, commands: Sequence[list[str]], folder: Path) -> list[subprocess.Popen]:
    """Each command on its node; what it prints is in `folder`/node0.log and so on."""
    return [nodes.start(number, command, log(folder, number), ROOT) for number, command in enumerate(commands)]


def log(folder: Path, number: int) -> Path:
    return folder / f"node{number}.log"


def wait_for_steps(output: Path, started: Sequence[subprocess.Popen], folder: Path, seconds: float = 800) -> None:
    """Return when the job has logged STEPS steps."""
    end = time.monotonic() + seconds
    while not (output / "metrics.jsonl").is_file() or STEPS not in losses(output):
        ended = [number for number, process in enumerate(started) if process.poll() is not None]
        assert not ended, f"node {ended[0]} ended too early:\n{log(folder, ended[0]).read_text()[-4000:]}"
        assert time.monotonic() < end, f"no {STEPS} steps in {seconds} s:\n{log(folder, 0).read_text()[-4000:]}"
        time.sleep(0.3)


def wait_for_ends(started: Sequence[subprocess.Popen], folder: Path, seconds: float = 400) -> list[int]:
    """The exit codes, all ended by themselves."""
    end = time.monotonic() + seconds
    for number, process in enumerate(started):
        try:
            process.wait(max(1.0, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            text = log(folder, number).read_text()[-4000:]
            raise AssertionError(f"node {number} did not end in {seconds} s:\n{text}") from None
    return [process.returncode for process in started]


def assert_same_losses(output: Path, alone: dict[int, float]) -> None:
    """The first steps have the losses of one process."""
    found = losses(output)
    assert len(set(alone.values())) == STEPS
    assert {step: found[step] for step in alone} == pytest.approx(alone, abs=2e-6)
