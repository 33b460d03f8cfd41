"""Checks of all ranks and nodes at the start of a job, before anything slow: what fails names rank and host."""

from __future__ import annotations

import logging
import os
import platform
import shutil
import time
import uuid
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from trex_ds.config import ConfigError
from trex_ds.distributed import PeerError, collective_device, local_rank, world_size
from trex_ds.environment import installed_versions
from trex_ds.launching.peers import Peers
from trex_ds.launching.process_group import peers
from trex_ds.version import __version__

log = logging.getLogger(__name__)

PACKAGES = ("torch", "deepspeed", "transformers", "peft", "accelerate", "bitsandbytes")
ANSWER_SECONDS = 120.0
"""How long each check waits for the slowest rank."""
FREE_GIB = 1.0
"""Free disk space that a job needs where it writes: for data and adapters of some size, not for every checkpoint."""
# A network file system may show a new file late, in a new folder by up to a minute.
_LOOKS, _LOOKS_IF_NEEDED, _LOOK_SECONDS = 20, 150, 0.5


def check_nodes(output: Path, cache: Path, *, saves: bool, resumes: bool) -> None:
    """Refuse to start where ranks differ, cannot write, do not see the same folder, or cannot add up a number.

    A collective; a single process checks its own folders.

    Args:
        output: the job's output_dir.
        cache: the folder of prepared data.
        saves: whether checkpoints are written, each rank its part.
        resumes: whether the job goes on from a checkpoint.

    Raises:
        ConfigError: with every problem of every rank, the same on all ranks.
        PeerError: a rank does not answer; names it.
    """
    job = peers()
    is_first = job is None or job.rank == 0
    own = f".preflight-{uuid.uuid4().hex}"
    try:
        written: list[Any] = [own, str(output), _write(output / own) if is_first else None]
        token, folder, problem = job.exchange("the write test", written, ANSWER_SECONDS)[0] if job else written
        facts = _facts(output, cache, None if problem else output / token, is_first, saves, resumes)
        found = job.exchange("the preflight", facts, ANSWER_SECONDS) if job else [facts]
    finally:
        with suppress(OSError):
            (output / own).unlink()
    names = ["this process"] if job is None else [job.name(rank) for rank in range(job.world)]
    problems = [f"{names[0]}: {problem}"] if problem else []
    problems += [f"{name}: {line}" for name, one in zip(names, found, strict=True) for line in one["problems"]]
    problems += _differences(names, [one["versions"] for one in found])
    if apart := [name for name, one in zip(names, found, strict=True) if not one["sees_token"]]:
        line = f"output_dir: what {names[0]} writes to {folder} is not seen by {_few(apart)}"
        if saves or resumes:
            problems.append(f"{line}; checkpoints need a folder that all nodes share: name one, or save none")
        elif is_first:
            log.warning("%s; results will be on the node of rank 0 alone", line)
    if problems:
        raise ConfigError(problems)
    if job is not None:
        _all_reduce(job)


def versions() -> dict[str, str]:
    """Versions of all that has to be the same on every rank; "none" for what is not installed."""
    own = {"python": platform.python_version(), "trex_ds": __version__}
    return own | dict.fromkeys(PACKAGES, "none") | installed_versions(PACKAGES)


def _facts(output: Path, cache: Path, token: Path | None, is_first: bool, saves: bool, resumes: bool) -> dict[str, Any]:
    """Report of this rank; `token` is the file that rank 0 has written."""
    sees_token = token is None or _sees(token, _LOOKS_IF_NEEDED if saves or resumes else _LOOKS)
    problems = []
    if token is not None and sees_token and saves:
        own = output / f"{token.name}-{os.environ['RANK']}"  # of a checkpoint each rank writes a part
        problems.append(_write(own))
        own.unlink(missing_ok=True)
    if is_first or (local_rank() == 0 and saves):
        problems.append(_too_full("output_dir", output))
    if is_first and resumes:
        problems.append(_checkpoint_problem(output))
    if local_rank() == 0:
        problems.append(_too_full("data.cache", cache))
    return {"versions": versions(), "sees_token": sees_token, "problems": [line for line in problems if line]}


def _write(file: Path) -> str | None:
    """Write `file`, and return what prevents it, if anything."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("written by the preflight of trex_ds, and to be deleted by it", encoding="utf-8")
    except OSError as error:
        return f"output_dir: {file.parent} cannot be written to: {error}; name another folder, or allow it"
    return None


def _sees(file: Path, looks: int) -> bool:
    for _ in range(looks):
        if file.is_file():
            return True
        time.sleep(_LOOK_SECONDS)
    return False


def _too_full(name: str, folder: Path) -> str | None:
    existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.is_dir())
    if not os.access(existing, os.W_OK):
        return None  # a cache that is only read
    free = shutil.disk_usage(existing).free / 2**30
    if free >= FREE_GIB:
        return None
    return f"{name}: {folder} has {free:.2f} GiB free, less than {FREE_GIB:g} GiB; make room, or name another folder"


def _checkpoint_problem(output: Path) -> str | None:
    """Why the latest checkpoint cannot be resumed from: half written, or of another number of ranks."""
    from transformers.trainer_utils import get_last_checkpoint

    latest = get_last_checkpoint(output)
    if latest and not (Path(latest) / "trainer_state.json").is_file():  # which is written last
        return f"training.resume: {latest} was not finished; delete it to resume from the one before, if there is one"
    found = len({file.name for file in Path(latest).glob("global_step*/*_optim_states.pt")}) if latest else 0
    if found in (0, world_size()):
        return None
    return (
        f"training.resume: {latest} was written by {found} ranks, and this job has {world_size()}; start as many, on "
        "as many nodes as you like"
    )


def _differences(names: Sequence[str], found: Sequence[dict[str, str]]) -> list[str]:
    lines = []
    for package in found[0]:
        ranks = defaultdict(list)
        for name, own in zip(names, found, strict=True):
            ranks[own[package]].append(name)
        if len(ranks) > 1:
            which = "; ".join(f"{number} on {_few(owners)}" for number, owners in ranks.items())
            lines.append(f"versions of {package} differ: {which}; install the same on all nodes (constraints.txt)")
    return lines


def _few(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= 8 else f"{', '.join(names[:8])} and {len(names) - 8} more"


def _all_reduce(job: Peers) -> None:
    """Add up a number over all ranks, as training does, within a short time."""
    job.exchange("the first all-reduce", None, ANSWER_SECONDS)
    tensor = torch.ones(1, device=collective_device())
    try:
        dist.all_reduce(tensor, async_op=True).wait(timedelta(seconds=ANSWER_SECONDS))
        total = tensor.item()
    except RuntimeError as error:
        raise PeerError(
            f"all ranks began an all-reduce over {dist.get_backend()}, and it did not end within "
            f"{ANSWER_SECONDS:g} s: {error}; look at the network between the nodes, and at GLOO_SOCKET_IFNAME or "
            "NCCL_SOCKET_IFNAME"
        ) from error
    assert total == job.world, f"{job.name(job.rank)}: an all-reduce of ones over {job.world} ranks gave {total}"
