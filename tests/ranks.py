"""Runs a function on several ranks, each a process of its own with the imports already done (see conftest.py)."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import random
import socket
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

# The libraries that the fork server has loaded touch a GPU where there is one, and CUDA does not survive a fork.
_CONTEXT: Any = multiprocessing.get_context("spawn" if torch.cuda.is_available() else "forkserver")


def free_port() -> int:
    """One that the kernel gives to nobody else until it is used, which may take a minute."""
    while True:
        port = random.SystemRandom().randrange(20_000, 32_000)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


def run_ranks(world: int, folder: Path, function: Callable[..., Any], *arguments: Any, timeout: float = 1000) -> list:
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


def run_to_the_end(
    world: int, folder: Path, function: Callable[..., Any], *arguments: Any, endless: int | None = None
) -> list[tuple[int | None, str]]:
    """`function(*arguments)` on `world` ranks that may end in any way: exit code and standard error of each.

    The code of the rank `endless`, which is killed when all others have ended, is None.
    """
    port = free_port()
    processes = [
        _CONTEXT.Process(target=_run, args=(rank, world, port, folder, _with_log, (folder, function, arguments)))
        for rank in range(world)
    ]
    for process in processes:
        process.start()
    for rank, process in enumerate(processes):
        if rank != endless:
            process.join(600)
    codes = [process.exitcode for process in processes]
    for process in processes:
        process.kill()
    return [(code, (folder / f"stderr{rank}").read_text()) for rank, code in enumerate(codes)]


def _with_log(folder: Path, function: Callable[..., Any], arguments: tuple) -> None:
    with (folder / f"stderr{os.environ['RANK']}").open("w") as stream:
        os.dup2(stream.fileno(), 2)
    function(*arguments)


def _run(rank: int, world: int, port: int, folder: Path, function: Callable[..., Any], arguments: tuple) -> None:
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
