"""Nodes on one machine: network namespaces with addresses and host names of their own, on one bridge."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

# What `ip netns exec` leaves shared is the host's name, which error messages are to tell.
_NAME = "import os, socket, sys; socket.sethostname(sys.argv[1]); os.execvp(sys.argv[2], sys.argv[2:])"
_NAMED = ["unshare", "--uts", sys.executable, "-c", _NAME]


def why_not() -> str | None:
    """What keeps this machine from having such nodes, or None."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    for program, package in (("ip", "iproute2"), ("unshare", "util-linux")):
        if shutil.which(program) is None:
            return f"network namespaces need the program {program} ({package})"
    try:
        with Nodes(1) as nodes:
            started = subprocess.run(nodes.command(0, ["true"]), capture_output=True, text=True)
            return None if started.returncode == 0 else f"no network namespaces here: {started.stderr.strip()}"
    except subprocess.CalledProcessError as error:
        return f"no network namespaces here: {error.stderr.strip()}"


class Nodes:
    """`count` nodes named node0, node1, ... with the addresses 10.77.0.1, 10.77.0.2, ...; gone after the block."""

    def __init__(self, count: int):
        self.addresses = [f"10.77.0.{number + 1}" for number in range(count)]
        prefix = f"trex{uuid.uuid4().hex[:8]}"
        self._bridge = f"{prefix}-bridge"
        self._names = [f"{prefix}-{number}" for number in range(count)]

    def __enter__(self) -> Self:
        try:
            _ip("netns", "add", self._bridge)
            _ip("-n", self._bridge, "link", "add", "bridge", "type", "bridge")
            _ip("-n", self._bridge, "link", "set", "bridge", "up")
            for number, (name, address) in enumerate(zip(self._names, self.addresses, strict=True)):
                _ip("netns", "add", name)
                port = f"port{number}"
                _ip("-n", self._bridge, *f"link add {port} type veth peer name eth0 netns {name}".split())
                _ip("-n", self._bridge, *f"link set {port} master bridge up".split())
                _ip("-n", name, "link", "set", "lo", "up")
                _ip("-n", name, "address", "add", f"{address}/24", "dev", "eth0")
                _ip("-n", name, "link", "set", "eth0", "up")
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, name in enumerate(self._names):
            self.kill(number)
            subprocess.run(["ip", "netns", "delete", name], capture_output=True)
        subprocess.run(["ip", "netns", "delete", self._bridge], capture_output=True)

    def command(self, number: int, command: Sequence[str]) -> list[str]:
        """`command` as it runs on node `number`."""
        return ["ip", "netns", "exec", self._names[number], *_NAMED, f"node{number}", *command]

    def start(self, number: int, command: Sequence[str], log: Path, folder: Path) -> subprocess.Popen:
        """`command` on node `number`, in `folder`, with all that it prints in `log`."""
        with log.open("w") as stream:
            return subprocess.Popen(
                self.command(number, command), cwd=folder, stdout=stream, stderr=subprocess.STDOUT, env=os.environ
            )

    def cut(self, number: int) -> None:
        """Pull the cable of node `number`."""
        _ip("-n", self._bridge, "link", "set", f"port{number}", "down")

    def processes(self, number: int) -> list[int]:
        """The ids of all processes on node `number`."""
        listed = subprocess.run(["ip", "netns", "pids", self._names[number]], capture_output=True, text=True)
        return [int(line) for line in listed.stdout.split()]

    def kill(self, number: int) -> None:
        """End all processes on node `number`, as a crash of the node would."""
        while running := self.processes(number):
            for process in running:
                try:
                    os.kill(process, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            time.sleep(0.1)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)
