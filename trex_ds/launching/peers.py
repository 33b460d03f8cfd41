"""The other ranks of a job: on which hosts they run, whether all have come, and which one is gone.

Ranks talk here over a key-value store that lies with rank 0 (under torchrun with its first agent), by
connections of their own: that works before there is a process group, and while a collective hangs.
"""

from __future__ import annotations

import itertools
import json
import os
import socket
import sys
import threading
import time
from collections import Counter
from contextlib import suppress
from datetime import timedelta
from typing import Any

import torch.distributed as dist

from trex_ds.distributed import PeerError

WAY_OUT = (
    "Look at that node, its log and the network; then start all nodes again, with --training.resume true if there is "
    "a checkpoint."
)
_LONGEST_BEAT_SECONDS = 5.0
_BEATS_IN_LIMIT = 6
_DONE, _ENDED = "done", "ended: "


class Peers:
    """All ranks by name, and small messages among them.

    Args:
        join_seconds: how long to wait until all ranks are there.

    Raises:
        PeerError: rank 0's node cannot be reached, or ranks are missing; names them.
    """

    def __init__(self, join_seconds: float):
        self.rank, self.world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        self.hosts: list[str] = []
        self._topics: Counter[str] = Counter()
        self.store = _connect(join_seconds, serve=self.rank == 0)
        self.hosts = self.exchange("the start of the job", socket.gethostname(), join_seconds)

    def name(self, rank: int) -> str:
        """`rank 3 on node7`."""
        return f"rank {rank} on {self.hosts[rank]}" if self.hosts else f"rank {rank}"

    @property
    def own_name(self) -> str:
        """Name of this rank."""
        return self.name(self.rank)

    def exchange(self, topic: str, value: Any, seconds: float) -> list[Any]:
        """The JSON `value` of every rank, in the order of ranks; a collective.

        Raises:
            PeerError: some ranks did not come within `seconds`; names them.
        """
        self._topics[topic] += 1  # a process may run several jobs
        keys = [f"{topic}/{self._topics[topic]}/{rank}" for rank in range(self.world)]
        self.store.set(keys[self.rank], json.dumps(value))
        try:
            self.store.wait(keys, timedelta(seconds=seconds))
        except dist.DistStoreError:
            missing = [self.name(rank) for rank, key in enumerate(keys) if not self.store.check([key])]
            message = f"{', '.join(missing)} did not come to {topic} within {seconds:g} s"
            raise PeerError(f"{message}; look at the log of that node, and whether it reaches this one") from None
        values = [json.loads(found) for found in self.store.multi_get(keys)]
        self.store.set(f"{keys[self.rank]}/read", "")
        if self.rank == 0:  # it may end the job for what it has read, and the store with it
            with suppress(dist.DistStoreError):
                self.store.wait([f"{key}/read" for key in keys], timedelta(seconds=seconds))
        return values


class Watch:
    """Ends this process, with a message that says why, when another rank has failed or is not heard of any more.

    Every rank counts in the store, from a thread of its own, so work that takes long is no silence. Made on
    all ranks together; `leave` and `fail` stop it.

    Args:
        peers: all ranks.
        limit: how many seconds a rank may be silent.
        number: how many watches this process had before.
        join_seconds: how long to wait until all ranks have one.

    Raises:
        PeerError: some ranks have none in time; names them.
    """

    def __init__(self, peers: Peers, limit: float, number: int, join_seconds: float):
        self._peers = peers
        self._limit = limit
        self._interval = min(_LONGEST_BEAT_SECONDS, limit / _BEATS_IN_LIMIT)
        self._store = dist.PrefixStore(f"watch {number}", _connect(limit, serve=False))
        self._ranks = [str(rank) for rank in range(peers.world)]
        self._store.set(self._ranks[peers.rank], "")
        peers.exchange("the watch", None, join_seconds)  # to read what is not there yet would block
        self._found = [""] * peers.world
        self._beats = [0] * peers.world
        self._answered = time.monotonic()
        self._heard = [self._answered] * peers.world
        self._stopped = threading.Event()
        self._last_word = ""
        self._talking = threading.Thread(target=self._beat, daemon=True)
        self._talking.start()
        threading.Thread(target=self._judge, daemon=True).start()

    def leave(self) -> None:
        """Note that this rank has done its part, so that its silence means nothing."""
        self._stop_saying(_DONE, self._limit)

    def fail(self, outcome: str) -> None:
        """Tell all ranks how this one ended ("failed: ..."), and leave them the time to hear it."""
        self._stop_saying(_ENDED + outcome, self._interval)
        time.sleep(self._interval + 1)

    def why_broken(self) -> str | None:
        """Tell a rank whose collective broke which other failed or fell silent; None if none did, or none is heard."""
        # The first beat found from now on may have been left before the break; the second was not.
        proof = [beats + 2 for beats in self._beats]
        while not (reason := self._lost(2.5 * self._interval)):
            # The store may have gone with a first rank that had done its part: then nobody is heard any more.
            gone = time.monotonic() - self._answered > 5 * self._interval
            if gone or all(
                beats >= enough or self._found[rank] == _DONE
                for rank, (beats, enough) in enumerate(zip(self._beats, proof, strict=True))
            ):
                return None
            time.sleep(self._interval / 10)
        return reason

    def _beat(self) -> None:
        for count in itertools.count():
            last = self._stopped.is_set()
            # A store that is gone is noticed by its silence, like a rank.
            with suppress(RuntimeError):
                self._store.set(self._ranks[self._peers.rank], self._last_word if last else str(count))
                values = [value.decode() for value in self._store.multi_get(self._ranks)]
                answered = time.monotonic()
                for rank, value in enumerate(values):
                    if value != self._found[rank]:
                        self._found[rank], self._heard[rank] = value, answered
                        self._beats[rank] += 1
                self._answered = answered
            if last:
                return
            self._stopped.wait(self._interval)

    def _judge(self) -> None:
        # Apart from the thread that talks, which a cut link may keep in a system call forever.
        while True:
            before = time.monotonic()
            if self._stopped.wait(self._interval / 2):
                return
            if time.monotonic() - before > 2 * self._interval:
                # This process itself was stopped, and likely all of the job with it: what it knows is old.
                self._answered = time.monotonic()
                self._heard = [self._answered] * self._peers.world
            elif reason := self._lost(self._limit):
                print(f"\n{self._peers.own_name} stops: {reason}. {WAY_OUT}", file=sys.stderr, flush=True)
                os._exit(1)

    def _lost(self, limit: float) -> str | None:
        """Say which process has failed, or has been silent for `limit` seconds."""
        now = time.monotonic()
        for rank, value in enumerate(self._found):
            if value.startswith(_ENDED) and rank != self._peers.rank:
                return f"{self._peers.name(rank)} {value.removeprefix(_ENDED)}"
        longest = max(limit, 4 * self._interval)
        if now - self._answered > longest and self._found[0] != _DONE:
            return f"{self._peers.name(0)}, which keeps the ranks together, has not answered for {longest:.0f} s"
        # Up to the last answer, so that a rank that is late itself blames nobody.
        silent = [
            self._peers.name(rank)
            for rank, heard in enumerate(self._heard)
            if self._answered - heard > limit and self._found[rank] != _DONE
        ]
        return f"nothing was heard for {limit:.0f} s from {', '.join(silent)}" if silent else None

    def _stop_saying(self, word: str, seconds: float) -> None:
        self._last_word = word
        self._stopped.set()
        self._talking.join(seconds)  # no longer: a cut link may keep it


def _connect(seconds: float, serve: bool) -> dist.TCPStore:
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    try:
        return dist.TCPStore(
            address,
            port,
            is_master=serve and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True",
            timeout=timedelta(seconds=seconds),
            wait_for_workers=False,
            multi_tenant=True,
        )
    except dist.DistError as error:
        raise PeerError(
            f"rank {os.environ['RANK']} on {socket.gethostname()} cannot reach rank 0 at MASTER_ADDR {address}, "
            f"MASTER_PORT {port}: {str(error).splitlines()[0]}"
        ) from error
