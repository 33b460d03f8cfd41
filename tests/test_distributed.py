"""The collective helpers in one process and in a group of two."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from trex_ds import distributed

WORLD = 2


def caught(function: Callable[[], Any]) -> str:
    try:
        function()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "nothing raised"


def fail() -> None:
    raise KeyError("lost")


def agree(error: Exception | None) -> None:
    with distributed.agreed():
        if error is not None:
            raise error


def collect(rank: int, folder: str) -> None:
    """Every helper once on each of two ranks; what came out goes into a file."""
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=WORLD, timeout=timedelta(seconds=120)
    )
    error = OSError("disk full") if rank == 1 else None
    ones = torch.full((2, 3), 1.0 + rank)
    transposed = torch.arange(6.0).reshape(2, 3).t()
    results = {
        "where": (distributed.is_distributed(), distributed.rank(), distributed.world_size()),
        "rank_zero": distributed.on_rank_zero(lambda: {"pid": os.getpid(), "rank": distributed.rank()}),
        "rank_zero_fails": caught(lambda: distributed.on_rank_zero(fail)),
        "rank_zero_unpicklable": caught(lambda: distributed.on_rank_zero(lambda: lambda: None)),
        "one_rank_fails": caught(lambda: agree(error)),
        "all_ranks_fail": caught(lambda: agree(ValueError(f"from {rank}"))),
        "no_rank_fails": agree(None),  # type: ignore[func-returns-value]
        "sum": distributed.sum_over_ranks(ones),
        "sum_input": ones,
        "sum_int": distributed.sum_over_ranks(torch.tensor([2**40])),
        "sum_transposed": distributed.sum_over_ranks(transposed),
        "sum_expanded": distributed.sum_over_ranks(torch.tensor([1.0]).expand(3)),
    }
    torch.save(results, Path(folder) / f"{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory) -> list[dict[str, Any]]:
    folder = str(tmp_path_factory.mktemp("ranks"))
    mp.start_processes(collect, args=(folder,), nprocs=WORLD, start_method="forkserver")
    return [torch.load(f"{folder}/{rank}.pt", weights_only=False) for rank in range(WORLD)]


def test_each_rank_knows_its_place(ranks):
    assert [r["where"] for r in ranks] == [(True, 0, 2), (True, 1, 2)]


def test_on_rank_zero_runs_once_and_all_get_the_result(ranks):
    assert ranks[0]["rank_zero"] == ranks[1]["rank_zero"]
    assert ranks[0]["rank_zero"]["rank"] == 0


def test_error_on_rank_zero_is_raised_everywhere(ranks):
    assert ranks[0]["rank_zero_fails"] == "KeyError: 'lost'"
    assert ranks[1]["rank_zero_fails"] == "PeerError: rank 0 failed, so rank 1 stops: KeyError: 'lost'"


def test_result_that_cannot_be_pickled_does_not_leave_ranks_waiting(ranks):
    assert "pickle" in ranks[0]["rank_zero_unpicklable"]
    assert ranks[1]["rank_zero_unpicklable"].startswith("PeerError: rank 0 failed, so rank 1 stops: ")


def test_agree_raises_on_all_ranks_and_names_the_failed_one(ranks):
    assert ranks[0]["one_rank_fails"] == "PeerError: rank 1: OSError: disk full"
    assert ranks[1]["one_rank_fails"] == "OSError: disk full"
    assert [r["all_ranks_fail"] for r in ranks] == ["ValueError: from 0", "ValueError: from 1"]
    assert [r["no_rank_fails"] for r in ranks] == [None, None]


def test_sum_over_ranks(ranks):
    for rank, r in enumerate(ranks):
        assert torch.equal(r["sum"], torch.full((2, 3), 3.0))
        assert torch.equal(r["sum_input"], torch.full((2, 3), 1.0 + rank))
        assert r["sum_int"].tolist() == [2**41]
        assert torch.equal(r["sum_transposed"], 2 * torch.arange(6.0).reshape(2, 3).t())
        assert torch.equal(r["sum_expanded"], torch.full((3,), 2.0))


def test_one_process_needs_no_group():
    assert (distributed.is_distributed(), distributed.rank(), distributed.world_size()) == (False, 0, 1)
    assert distributed.collective_device() == torch.device("cpu")
    assert distributed.on_rank_zero(lambda: 3) == 3
    assert caught(lambda: distributed.on_rank_zero(fail)) == "KeyError: 'lost'"
    assert agree(None) is None
    assert caught(lambda: agree(OSError("x"))) == "OSError: x"
    tensor = torch.ones(2)
    total = distributed.sum_over_ranks(tensor)
    total += 1
    assert tensor.tolist() == [1.0, 1.0]
