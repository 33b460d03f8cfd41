"""What ranks do about each other: wait for long work, and end when one has failed or is gone."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from types import SimpleNamespace

import pytest
import torch

from tests.ranks import run_ranks, run_to_the_end
from trex_ds.distributed import agreed, on_rank_zero, rank, sum_over_ranks
from trex_ds.launching import process_group as launching
from trex_ds.launching.peers import Watch
from trex_ds.launching.process_group import naming_the_rank, start_distributed

HOST = socket.gethostname()
LIMIT = 0.1
"""Minutes that a rank may be silent."""


def slow_seven() -> int:
    time.sleep(90 * LIMIT)
    return 7


def work_alone() -> list[int]:
    """Each rank in turn works for longer than the limit while the other waits for it, and at the end too."""
    start_distributed(LIMIT)
    with naming_the_rank():
        value = on_rank_zero(slow_seven)
        if rank() == 1:
            time.sleep(90 * LIMIT)
        with agreed():
            pass
        total = int(sum_over_ranks(torch.tensor(value)))
        if rank() == 0:
            time.sleep(90 * LIMIT)  # the other has left the block
    return [value, total]


def test_work_of_one_rank_may_take_longer_than_the_limit(tmp_path):
    assert run_ranks(2, tmp_path, work_alone) == [[7, 14], [7, 14]]


def join_without_a_gpu() -> str:
    """Rank 0 as if it had one."""
    try:
        launching._make_group("nccl" if os.environ["RANK"] == "0" else "gloo", LIMIT)
    except ValueError as error:
        return str(error)
    return "nothing raised"


def test_rank_without_the_gpu_that_others_have_is_named(tmp_path):
    first, second = run_ranks(2, tmp_path, join_without_a_gpu)
    assert first == second
    assert f"rank 1 on {HOST}: sees no GPU, but other ranks do" in first


def join_alone() -> None:
    launching.JOIN_SECONDS = 5.0
    if os.environ["RANK"] == "0":
        start_distributed(LIMIT)


def test_rank_that_does_not_start_is_named(tmp_path):
    (code, text), _ = run_to_the_end(2, tmp_path, join_alone)
    assert code == 1
    assert "rank 1 did not come to the start of the job within 6 s" in text


def fail_on_rank_one() -> None:
    start_distributed(LIMIT)
    with naming_the_rank():
        if rank() == 1:
            raise KeyError("lost")
        sum_over_ranks(torch.ones(1))


def stop_rank(number: int) -> None:
    start_distributed(LIMIT)
    with naming_the_rank():
        if rank() == number:
            os.kill(os.getpid(), signal.SIGSTOP)
        on_rank_zero(lambda: None)


def leave_without_a_word() -> None:
    start_distributed(LIMIT)
    with naming_the_rank():
        if rank() == 1:
            os._exit(3)
        sum_over_ranks(torch.ones(1))


def leave_while_the_other_hears_late() -> None:
    def hear_late(watch: Watch) -> None:
        read = watch._store.multi_get

        def read_late(keys: list[str]) -> list[bytes]:
            values = read(keys)
            time.sleep(15 * LIMIT)  # longer than between beats, of which six are in the limit
            return values

        watch._store = SimpleNamespace(set=watch._store.set, multi_get=read_late)  # type: ignore[assignment]
        beat(watch)

    beat = Watch._beat
    if os.environ["RANK"] == "0":
        Watch._beat = hear_late  # type: ignore[method-assign, assignment]
    leave_without_a_word()


def use_a_collective_that_the_first_has_left() -> None:
    start_distributed(LIMIT)
    with naming_the_rank():
        if rank() == 1:
            time.sleep(80 * LIMIT)
            sum_over_ranks(torch.ones(1))
    time.sleep(30 * LIMIT)  # so that it is known that this one has done its part, before the store goes with it


def test_collective_after_the_end_of_the_first_rank_is_an_error_in_bounded_time(tmp_path):
    (code, _), (other, text) = run_to_the_end(2, tmp_path, use_a_collective_that_the_first_has_left)
    assert (code, other) == (0, 1)
    assert f"rank 1 on {HOST} failed: " in text


def test_failure_of_a_rank_is_told_by_all(tmp_path):
    (code, text), (failed, own) = run_to_the_end(2, tmp_path, fail_on_rank_one)
    assert (code, failed) == (1, 1)
    assert f"rank 0 on {HOST} stops: rank 1 on {HOST} failed: KeyError: 'lost'" in text
    assert f"rank 1 on {HOST} failed: KeyError: 'lost'" in own
    assert "Traceback" in own


@pytest.mark.parametrize("leave", [leave_without_a_word, leave_while_the_other_hears_late])
def test_rank_that_is_gone_is_named(tmp_path, leave):
    (code, text), (gone, _) = run_to_the_end(2, tmp_path, leave)
    assert (code, gone) == (1, 3)
    assert f"from rank 1 on {HOST}" in text


SILENCE = [(0, "which keeps the ranks together, has not answered for 6 s"), (1, "nothing was heard for 6 s")]


@pytest.mark.parametrize(("number", "reason"), SILENCE)
def test_silent_rank_ends_the_other(tmp_path, number, reason):
    ends = run_to_the_end(2, tmp_path, stop_rank, number, endless=number)
    code, text = ends[1 - number]
    assert code == 1
    assert f"rank {number} on {HOST}" in text
    assert reason in text
    assert ends[number][0] is None


def test_first_node_uses_the_interface_that_leads_to_another(monkeypatch):
    """MASTER_ADDR may be a name that its own host takes for 127.0.1.1."""
    card = SimpleNamespace(address="10.0.0.1")
    monkeypatch.setattr(launching.psutil, "net_if_addrs", lambda: {"lo": [], "eth7": [card]})
    monkeypatch.setattr(launching, "_address_towards", {"node1": "127.0.1.1", "10.0.0.2": "10.0.0.1"}.get)
    for name, value in {"WORLD_SIZE": "2", "LOCAL_SIZE": "1", "MASTER_ADDR": "node1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "")  # set, so that what the function makes of it is undone
    launching._name_interface(SimpleNamespace(exchange=lambda *_: ["127.0.1.1", "10.0.0.2"]))
    assert os.environ["GLOO_SOCKET_IFNAME"] == "eth7"


def pause() -> str:
    start_distributed(LIMIT)
    with naming_the_rank():
        torch.distributed.barrier()
        subprocess.Popen(["sh", "-c", f"kill -STOP {os.getpid()}; sleep {60 * LIMIT + 4}; kill -CONT {os.getpid()}"])
        end = time.monotonic() + 60 * LIMIT + 6
        while time.monotonic() < end:
            time.sleep(0.1)
        with agreed():
            pass
    return "went on"


def test_job_that_was_paused_as_a_whole_goes_on(tmp_path):
    assert run_ranks(2, tmp_path, pause) == ["went on", "went on"]
