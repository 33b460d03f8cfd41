"""Weights on a disk: DeepSpeed compiles what reads them, which takes minutes the first time."""

from __future__ import annotations

import json
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from deepspeed.ops.op_builder import AsyncIOBuilder

from tests.ranks import run_ranks
from tests.training.jobs import ROOT, run_job, write_model, write_recipe


def with_and_without(in_memory: Path, on_disk: Path, disk: Path) -> tuple[dict[str, Any], dict[str, Any], int]:
    """Both outcomes, and the most bytes that lay on the disk meanwhile: DeepSpeed clears it at the end."""
    plain = run_job(in_memory)
    most, done = 0, threading.Event()

    def watch() -> None:
        nonlocal most
        while not done.wait(0.05):
            with suppress(FileNotFoundError):  # another rank's, cleared just now
                most = max(most, sum(file.stat().st_size for file in disk.rglob("*") if file.is_file()))

    thread = threading.Thread(target=watch)
    thread.start()
    from_disk = run_job(on_disk)
    done.set()
    thread.join()
    return plain, from_disk, most


@pytest.mark.slow
@pytest.mark.skipif(not AsyncIOBuilder().is_compatible(), reason="DeepSpeed's async_io needs libaio's headers")
@pytest.mark.parametrize("quantization", [None, "nf4"])
def test_jobs_of_two_ranks_have_the_same_losses_with_weights_on_a_disk(tmp_path, quantization):
    disk = tmp_path / "disk"
    disk.mkdir()
    write_model(tmp_path / "model", hidden_size=1024, intermediate_size=8192, num_hidden_layers=1)
    config = json.loads((ROOT / "ds_configs" / "zero3_nvme_bf16.json").read_text()) | {"bf16": {"enabled": False}}
    config["zero_optimization"]["offload_param"] |= {"nvme_path": str(disk), "buffer_size": 5_000_000}
    (tmp_path / "nvme.json").write_text(json.dumps(config))
    model = {"name": str(tmp_path / "model"), "dtype": "float32", "quantization": quantization}
    in_memory = write_recipe(tmp_path, model=model)
    places = {"output_dir": str(tmp_path / "on_disk"), "training__deepspeed": str(tmp_path / "nvme.json")}
    on_disk = write_recipe(tmp_path, model=model, **places)
    one, other, stored = run_ranks(2, tmp_path, with_and_without, in_memory, on_disk, disk)[0]
    assert len(set(one["losses"].values())) == 3
    # Sums over rows that are 32 times as long as those of the other jobs' model, in float32.
    assert other["losses"] == pytest.approx(one["losses"], abs=1e-5)
    assert other["adapted"] == one["adapted"]
    base = json.loads((tmp_path / "on_disk" / "memory.json").read_text())["after loading"][0]["roles"]["base"]
    # DeepSpeed keeps parts below a MiB in memory.
    assert stored > 0.7 * base["stored_bytes"]
