"""What every launch of a test is compared with, and runs in."""

from __future__ import annotations

import json

import pytest

from tests.nodes.launches import write_job
from tests.ranks import run_ranks
from tests.training.jobs import ROOT, ZERO3, run_job


@pytest.fixture(autouse=True)
def on_cpus(monkeypatch):
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.delenv("GLOO_SOCKET_IFNAME", raising=False)


@pytest.fixture(scope="session")
def alone(tmp_path_factory) -> dict[int, float]:
    """The losses of one process without ZeRO."""
    folder = tmp_path_factory.mktemp("alone")
    (folder / "no_zero.json").write_text(json.dumps({**ZERO3, "zero_optimization": {"stage": 0}}))
    (result,) = run_ranks(1, folder, run_job, write_job(folder, 1, training__deepspeed=str(folder / "no_zero.json")))
    return result["losses"]
