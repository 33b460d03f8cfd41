"""One run among others: what is kept of how it ended, and what ends the whole job."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from tests.comparison.jobs import write_comparison
from tests.ranks import run_to_the_end
from trex_ds.comparison.config import CompareRecipe
from trex_ds.comparison.runs import Run, execute, in_order, states_of
from trex_ds.comparison.state import RunState, begin, write_state
from trex_ds.config import ConfigError, read_recipe


def make_run(folder: Path, method: str = "small", **overrides: Any) -> Run:
    return read_run(folder, write_comparison(folder, **overrides), method)


def read_run(folder: Path, file: Path, method: str = "small") -> Run:
    recipe = read_recipe(CompareRecipe, ["--config", str(file)], "")
    child = recipe.child(recipe.methods["small"], 0, output_dir=str(folder / "comparison" / method))
    return Run(method, 0, child)


def status_of(run: Run, retry_failed: bool = False) -> RunState:
    (state,) = states_of([run], retry_failed)
    return state


def fail() -> Any:
    raise MemoryError("no room")


def test_result_and_failure_are_kept(tmp_path):
    run = make_run(tmp_path)
    assert status_of(run).status == "pending"
    assert execute(run, status_of(run), lambda: {"a": 1}).result == {"a": 1}
    assert (status_of(run).status, status_of(run).result) == ("finished", {"a": 1})
    other = make_run(tmp_path, "other")
    execute(other, status_of(other), fail)
    assert (status_of(other).status, status_of(other).error) == ("failed", "MemoryError: no room")
    assert status_of(other, retry_failed=True).status == "pending"


def test_a_run_starts_in_an_empty_folder(tmp_path):
    run = make_run(tmp_path)
    begin(run.folder, status_of(run))
    (run.folder / "adapter").mkdir()
    (run.folder / "metrics.jsonl").write_text("{}")
    execute(run, status_of(run), lambda: {"left": [path.name for path in run.folder.iterdir()]})
    assert status_of(run).result == {"left": ["run.json"]}


def test_a_run_that_ended_the_job_is_last_and_twice_is_a_failure(tmp_path):
    first, second = make_run(tmp_path), make_run(tmp_path, "other")
    begin(first.folder, status_of(first))
    runs = [first, second]
    assert [run for run, _ in in_order(runs, states_of(runs, False))] == [second, first]
    begin(first.folder, status_of(first))
    assert (status_of(first).status, status_of(first).error) == ("failed", "the job ended during this run, 2 times")
    assert in_order([first], states_of([first], False)) == []
    assert [run for run, _ in in_order([first], states_of([first], True))] == [first]


def test_only_a_finished_run_of_another_recipe_is_refused(tmp_path):
    run = make_run(tmp_path)
    changed = make_run(tmp_path, training__learning_rate=0.5)
    execute(run, status_of(run), fail)
    assert status_of(changed).status == "pending"
    begin(run.folder, status_of(run))
    assert status_of(changed).status == "pending"
    execute(run, status_of(run), lambda: {})
    with pytest.raises(ConfigError, match=r"another training\.learning_rate \(0\.01, now 0\.5\)"):
        status_of(changed)
    moved = make_run(tmp_path, tracking__uri=f"sqlite:///{tmp_path}/other.db")
    assert status_of(moved).status == "finished"


def test_files_of_something_else_are_not_deleted(tmp_path):
    run = make_run(tmp_path)
    run.folder.mkdir(parents=True)
    (run.folder / "thesis.tex").write_text("")
    with pytest.raises(ConfigError, match=r"holds files, but no run\.json"):
        status_of(run)


def on_two_ranks(folder: Path, file: Path, alone: bool) -> None:
    import torch
    import torch.distributed as dist

    from trex_ds.distributed import rank
    from trex_ds.launching.process_group import naming_the_rank, start_distributed
    from trex_ds.quiet import quiet_libraries

    quiet_libraries()
    start_distributed(0.2)
    run = read_run(folder, file)

    def work() -> Any:
        if rank() == 1:
            raise RuntimeError("only here" if alone else "here")
        if alone:
            dist.all_reduce(torch.ones(1))
        raise RuntimeError("and there")

    with naming_the_rank():
        execute(run, RunState(run.described()), work)


def test_a_failure_on_all_ranks_is_kept_and_one_on_a_single_rank_ends_the_job(tmp_path):
    file = write_comparison(tmp_path, training__timeout_minutes=0.2)
    run = read_run(tmp_path, file)
    assert [code for code, _ in run_to_the_end(2, tmp_path, on_two_ranks, tmp_path, file, False)] == [0, 0]
    assert json.loads((run.folder / "run.json").read_text())["error"] == "RuntimeError: and there"
    started = time.monotonic()
    (code, text), (other_code, other_text) = run_to_the_end(2, tmp_path, on_two_ranks, tmp_path, file, True)
    assert (code, other_code) == (1, 1)
    assert time.monotonic() - started < 300  # not JOIN_SECONDS
    assert "failed: RuntimeError: only here" in other_text
    assert "only here" in text
    assert json.loads((run.folder / "run.json").read_text())["status"] == "begun"


def test_state_without_its_folder_is_written(tmp_path):
    write_state(tmp_path / "new" / "run", RunState({}))
    assert (tmp_path / "new" / "run" / "run.json").is_file()
