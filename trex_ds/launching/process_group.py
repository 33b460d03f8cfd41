"""Starting the process group, for `deepspeed`, `torchrun` and plain `python` alike."""

from __future__ import annotations

import itertools
import os
import socket
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta

import psutil
import torch
import torch.distributed as dist

from trex_ds.config import ConfigError
from trex_ds.distributed import PeerError, use_patient_group
from trex_ds.launching.peers import WAY_OUT, Peers, Watch

JOIN_SECONDS = 600.0
"""How long ranks wait for the last one to start: importing libraries from a busy shared folder takes minutes."""
_PATIENCE = timedelta(days=365)


@dataclass
class _Job:
    """What the process knows of the job that it has joined."""

    peers: Peers | None = None
    timeout_minutes: float = 0.0
    watches: Iterator[int] = field(default_factory=itertools.count)


_JOB = _Job()


def start_distributed(timeout_minutes: float) -> torch.device:
    """Join the job's process group (made for one process if no launcher did); return this rank's device.

    Args:
        timeout_minutes: how long a collective of the training may take, and a rank be silent. What ranks do
            each on their own, as long as it takes, is waited for without a limit: `trex_ds.distributed`.

    Raises:
        ConfigError: some ranks have GPUs and others none.
    """
    import deepspeed

    for name, value in {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1"}.items():
        os.environ.setdefault(name, value)
    if "MASTER_PORT" not in os.environ:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            os.environ["MASTER_PORT"] = str(probe.getsockname()[1])
    on_gpu = torch.cuda.is_available()
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if on_gpu else torch.device("cpu")
    if on_gpu:
        torch.cuda.set_device(device)
    else:
        # DeepSpeed would build its shared-memory kernel here: most of a minute, and a compiler.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    if not dist.is_initialized():
        with _leaving_at_once():
            _JOB.peers = _make_group("nccl" if on_gpu else "gloo", timeout_minutes)
    _JOB.timeout_minutes = timeout_minutes
    deepspeed.init_distributed(verbose=False)  # it takes the group that is there
    return device


def peers() -> Peers | None:
    """The ranks of the job that `start_distributed` has joined; None for a single process."""
    return _JOB.peers


@contextmanager
def naming_the_rank() -> Iterator[None]:
    """End the process at once when the block raises, saying which rank failed and where.

    Waiting for peers in an orderly exit could hang: they may be inside a collective that this rank
    will never join. The launcher ends them when it sees this process gone, and those of other nodes
    are told. A rank that is gone without a word ends the others too, within the job's timeout.
    """
    watch = None
    if _JOB.peers is not None:
        with _leaving_at_once():
            watch = Watch(_JOB.peers, 60 * _JOB.timeout_minutes, next(_JOB.watches), JOIN_SECONDS)
    with _leaving_at_once(watch):
        yield


@contextmanager
def _leaving_at_once(watch: Watch | None = None) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if int(os.environ.get("WORLD_SIZE", "1")) == 1:
            raise
        if isinstance(error, ConfigError):
            if watch is not None:
                watch.leave()
            raise
        message = f"{type(error).__name__}: {error}"
        if watch is not None and is_broken_by_a_peer(error) and (reason := watch.why_broken()):
            outcome, rest = f"stops: {reason}", f". {WAY_OUT} (Here: {message})"
        else:
            traceback.print_exc()
            outcome, rest = f"failed: {message}", ""
        print(f"\nrank {os.environ['RANK']} on {socket.gethostname()} {outcome}{rest}", file=sys.stderr, flush=True)
        sys.stdout.flush()
        if watch is not None:
            watch.fail(outcome)
        os._exit(1)
    if watch is not None:
        watch.leave()


def is_broken_by_a_peer(error: Exception) -> bool:
    """Whether a collective failed because another rank left it or never joined."""
    return isinstance(error, dist.DistError) or "gloo" in str(error)


def _make_group(backend: str, timeout_minutes: float) -> Peers | None:
    world = int(os.environ["WORLD_SIZE"])
    if world == 1:
        dist.init_process_group(backend)
        return None
    found = Peers(max(60 * timeout_minutes, JOIN_SECONDS))
    _name_interface(found)
    backends = found.exchange("the choice of devices", backend, JOIN_SECONDS)
    if len(set(backends)) > 1:
        without = ", ".join(found.name(rank) for rank, own in enumerate(backends) if own != "nccl")
        raise ConfigError([f"{without}: sees no GPU, but other ranks do; start all ranks with one, or all without"])
    limit = timedelta(minutes=timeout_minutes)
    store = dist.PrefixStore("process group", found.store)
    try:
        dist.init_process_group(backend, store=store, rank=found.rank, world_size=world, timeout=limit)
        if backend != "gloo":  # which alone connects at once: in time, while the patient group's attempts have no end
            dist.destroy_process_group(dist.new_group(backend="gloo", timeout=limit))
        use_patient_group(dist.new_group(backend="gloo", timeout=_PATIENCE))
    except RuntimeError as error:
        interface = os.environ.get("GLOO_SOCKET_IFNAME", "not set")
        raise PeerError(
            f"all ranks have started, but this one cannot connect to the others: {error}; GLOO_SOCKET_IFNAME is "
            f"{interface}: set it on each node to the network interface through which the nodes reach each other"
        ) from error
    return found


def _name_interface(peers: Peers) -> None:
    """Let gloo use the interface that leads to rank 0, and on rank 0's node the one that leads to another.

    It would take the address that the host's own name has, which is often 127.0.1.1, where no other
    node finds it.
    """
    local = int(os.environ.get("LOCAL_SIZE") or os.environ.get("LOCAL_WORLD_SIZE") or os.environ["WORLD_SIZE"])
    if local == int(os.environ["WORLD_SIZE"]):
        return
    own = _address_towards(os.environ["MASTER_ADDR"])
    addresses = peers.exchange("the choice of interfaces", own, JOIN_SECONDS)
    if os.environ.get("GLOO_SOCKET_IFNAME"):
        return
    if own.startswith("127."):
        own = next((_address_towards(other) for other in addresses if other and not other.startswith("127.")), "")
    for name, found in psutil.net_if_addrs().items():
        if name != "lo" and any(one.address == own for one in found):
            os.environ["GLOO_SOCKET_IFNAME"] = name


def _address_towards(host: str) -> str:
    """This machine's address on the way to `host`; "" if there is none."""
    with suppress(OSError):
        family, kind, _, _, address = socket.getaddrinfo(host, 9, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind) as probe:
            probe.connect(address)  # sends nothing, but chooses the way
            return probe.getsockname()[0]
    return ""
