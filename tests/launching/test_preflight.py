"""What the preflight finds on two ranks, of which one has a problem."""

from __future__ import annotations

import logging
import re
import resource
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.ranks import run_ranks
from tests.training.jobs import write_recipe
from tests.training.preparations import read
from trex_ds.distributed import rank
from trex_ds.launching import preflight

HOST = socket.gethostname()
CHECKPOINTS = ("--training.save_every", "1")


def outcome(file: Path, *arguments: str) -> str:
    try:
        recipe = read(file, *arguments)
        preflight.check_nodes(
            Path(recipe.output_dir),
            recipe.data.cache_path(),
            saves=recipe.training.save_every is not None,
            resumes=recipe.training.resume,
        )
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "passed"


@contextmanager
def no_room_for_a_byte() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


ALL_REDUCE = preflight._all_reduce


def all_reduce_in_a_hurry(job: Any) -> None:
    with pytest.MonkeyPatch.context() as patch:  # here alone: elsewhere the ranks may be late
        patch.setattr(preflight, "ANSWER_SECONDS", 5.0)
        ALL_REDUCE(job)


def come_but_do_not_add(job: Any) -> None:
    job.exchange("the first all-reduce", None, 5.0)
    time.sleep(5)


def check_everything(file: Path, folder: Path) -> dict[str, Any]:
    """Every case once; rank 1 is the one with the problem."""
    from trex_ds.launching.process_group import start_distributed

    start_distributed(0.5)
    second = rank() == 1
    warnings: list[str] = []

    def note(record: logging.LogRecord) -> bool:
        warnings.append(record.getMessage())
        return True

    preflight.log.addFilter(note)
    found: dict[str, Any] = {"passes": outcome(file, *CHECKPOINTS)}
    found["files left"] = sorted(path.name for path in (folder / "run").glob(".preflight*"))
    with pytest.MonkeyPatch.context() as patch:
        if second:
            versions = {**preflight.versions(), "torch": "1.0", "bitsandbytes": "0.1"}
            patch.setattr(preflight, "versions", lambda: versions)
            patch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=2**29))
            patch.setenv("LOCAL_RANK", "0")  # the first of its node speaks for the node's disks
        found["versions and disks"] = outcome(file, *CHECKPOINTS)
    with no_room_for_a_byte() if second else nullcontext():
        found["write"] = outcome(file, *CHECKPOINTS)
    elsewhere = ("--output_dir", str(folder / ("run1" if second else "run")))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(preflight, "_LOOK_SECONDS", 0.05)
        found["apart, with checkpoints"] = outcome(file, *elsewhere, *CHECKPOINTS)
        found["apart"] = outcome(file, *elsewhere)
    found["warnings"] = warnings
    found["no output"] = outcome(file, "--output_dir", str(file / "run"))
    # Last, because after them the ranks' collectives match no more.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(preflight, "_all_reduce", come_but_do_not_add if second else all_reduce_in_a_hurry)
        found["hangs"] = outcome(file)
        if second:
            patch.setattr(preflight, "_all_reduce", lambda job: time.sleep(8))
        found["absent"] = outcome(file)
    return found


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("preflight")
    return run_ranks(2, folder, check_everything, write_recipe(folder), folder)


def both(found: list[dict[str, Any]], case: str) -> str:
    """What was found, the same on both ranks."""
    first, second = (one[case] for one in found)
    assert first == second
    return first


def test_equal_ranks_pass_and_nothing_is_left(found):
    assert both(found, "passes") == "passed"
    assert both(found, "files left") == []


def test_versions_and_disks_come_in_one_message(found):
    message = both(found, "versions and disks")
    assert message.startswith("ConfigError: 4 problems found")
    assert f"versions of torch differ: {version('torch')} on rank 0 on {HOST}; 1.0 on rank 1 on {HOST}" in message
    assert "versions of bitsandbytes differ" in message
    for name in ("output_dir", "data.cache"):
        assert re.search(rf"rank 1 on {HOST}: {name}: \S+ has 0.50 GiB free, less than 1 GiB", message)


def test_rank_that_cannot_write_is_named(found):
    message = both(found, "write")
    assert message.startswith("ConfigError: 1 problem found")
    assert re.search(rf"rank 1 on {HOST}: output_dir: \S+ cannot be written to: .*File too large", message)


def test_folder_that_is_not_shared_is_refused_only_for_checkpoints(found):
    message = both(found, "apart, with checkpoints")
    assert message.startswith("ConfigError: 1 problem found")
    assert f"is not seen by rank 1 on {HOST}; checkpoints need a folder that all nodes share" in message
    assert both(found, "apart") == "passed"
    (warning,) = found[0]["warnings"]
    assert f"is not seen by rank 1 on {HOST}; results will be on the node of rank 0 alone" in warning
    assert found[1]["warnings"] == []


def test_output_that_rank_zero_cannot_make(found):
    message = both(found, "no output")
    assert message.startswith("ConfigError: 1 problem found")
    assert f"rank 0 on {HOST}: output_dir: " in message


def test_rank_that_does_not_come_to_the_all_reduce_is_named(found):
    assert f"rank 1 on {HOST} did not come to the first all-reduce within 5 s" in found[0]["absent"]
    assert found[0]["absent"].startswith("PeerError: ")


def test_all_reduce_that_does_not_end_is_an_error(found):
    assert found[0]["hangs"].startswith("PeerError: all ranks began an all-reduce over gloo, and it did not end")


def test_checkpoint_of_another_number_of_ranks_is_refused(tmp_path):
    states = tmp_path / "run" / "checkpoint-10" / "global_step10"
    states.mkdir(parents=True)
    (tmp_path / "run" / "checkpoint-9").mkdir()
    file = write_recipe(tmp_path)
    (tmp_path / "run" / "checkpoint-10" / "trainer_state.json").touch()
    for number in range(2):
        (states / f"zero_pp_rank_{number}_mp_rank_00_optim_states.pt").touch()
    message = outcome(file, "--training.resume", "true")
    assert re.search(r"training.resume: \S+/checkpoint-10 was written by 2 ranks, and this job has 1;", message)
    (states / "zero_pp_rank_1_mp_rank_00_optim_states.pt").unlink()
    assert outcome(file, "--training.resume", "true") == "passed"


def test_checkpoint_that_was_not_finished_is_refused(tmp_path):
    (tmp_path / "run" / "checkpoint-10" / "global_step10").mkdir(parents=True)
    message = outcome(write_recipe(tmp_path), "--training.resume", "true")
    assert re.search(r"checkpoint-10 was not finished; delete it to resume from the one before", message)


def test_one_process_checks_its_own_folders(tmp_path, monkeypatch):
    file = write_recipe(tmp_path)
    assert outcome(file) == "passed"
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=0))
    message = outcome(file)
    assert message.startswith("ConfigError: 2 problems found")
    assert "this process: output_dir: " in message
    assert outcome(file, "--output_dir", str(file)).startswith("ConfigError: 3 problems found")
