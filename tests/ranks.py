"""Runs a function on several ranks, each a process of its own with the imports already done (see conftest.py)."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import socket
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

_CONTEXT = multiprocessing.get_context("forkserver")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def run_ranks(world: int, folder: Path, function: Callable[..., Any], *arguments: Any, timeout: float = 500) -> list:
    """`function(*arguments)` on `world` ranks, with a launcher's variables set; what each returned.

    Raises:
        AssertionError: with the traceback of a rank that raised, or a note of one that did not end.
    """
    port = free_port()
    processes = [
        _CONTEXT.Process(target=_run, args=(rank, world, port, folder, function, arguments)) for rank in range(world)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout)
    hanging = [rank for rank, process in enumerate(processes) if process.is_alive()]
    for process in processes:
        process.kill()
    assert not hanging, f"ranks {hanging} did not end in {timeout} s"
    results = []
    for rank, process in enumerate(processes):
        file = folder / f"result{rank}"
        assert file.exists(), f"rank {rank} ended with code {process.exitcode} and no result"
        ok, value = pickle.loads(file.read_bytes())
        file.unlink()
        assert ok, f"rank {rank}: {value}"
        results.append(value)
    return results


def _run(rank: int, world: int, port: int, folder: Path, function: Callable[..., Any], arguments: tuple) -> None:
    import torch

    torch.set_num_threads(1)
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(world),
        "LOCAL_SIZE": str(world),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    try:
        outcome = (True, function(*arguments))
    except BaseException:
        outcome = (False, traceback.format_exc())
    (folder / f"result{rank}").write_bytes(pickle.dumps(outcome))
