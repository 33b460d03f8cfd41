"""trex-ds prepare, and a training job after it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.ranks import run_ranks
from tests.training.jobs import ROOT, run_job, write_recipe


def launch(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "launch/prepare.py", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("preparing")


@pytest.fixture(scope="module")
def prepared(folder) -> subprocess.CompletedProcess[str]:
    return launch("--config", str(write_recipe(folder, training__max_steps=1)), "--show", "2")


def test_examples_are_shown_by_task_and_split(prepared):
    assert prepared.returncode == 0, prepared.stderr
    heads = [line for line in prepared.stdout.splitlines() if line.startswith("=== ")]
    sizes = {tuple(head.removeprefix("=== ").split(": ")[0].split(", ")): int(head.split()[-2]) for head in heads}
    assert sizes.keys() == {(task, split) for task in ("spell", "sum") for split in ("train", "evaluation")}
    assert sizes["spell", "train"] + sizes["spell", "evaluation"] == 16
    assert sizes["sum", "train"] + sizes["sum", "evaluation"] == 20
    # Two of each split, each with its prompt.
    assert prepared.stdout.count("prompt: spell ") == prepared.stdout.count("prompt: what is ") == 4


def test_report_says_what_each_stage_cost(prepared, folder):
    report = json.loads((folder / "run" / "preparation.json").read_text())
    assert [stage["name"] for stage in report["stages"]] == ["examples", "intuition"]
    for stage in report["stages"]:
        assert stage["made"] is True
        assert stage["items"] == 36
        assert stage["seconds"] > 0
        assert stage["peak_mib"] > 50
    assert "versions" in report["environment"]
    assert f"cache: {folder}/cache" in prepared.stdout


def job_that_makes_nothing(file: Path) -> dict[str, Any]:
    from trex_ds.preparation import examples, intuition

    def fail(*_: Any, **__: Any) -> None:
        raise AssertionError("the job prepares what is prepared already")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(examples, "write_examples", fail)
        for name in ("SentenceTransformerEmbedder", "intuition_pass"):
            patch.setattr(intuition, name, fail)
        return run_job(file)


def test_training_makes_nothing_anew(prepared, folder):
    before = {path: path.stat().st_mtime_ns for path in (folder / "cache").rglob("*")}
    (result,) = run_ranks(1, folder, job_that_makes_nothing, folder / "run.yaml")
    assert list(result["losses"]) == [1]
    assert {path: path.stat().st_mtime_ns for path in (folder / "cache").rglob("*")} == before


def test_a_wrong_recipe_ends_it_with_code_2_and_all_problems(tmp_path):
    file = write_recipe(tmp_path)
    done = launch(
        *("--config", str(file), "--show", "1", "--sed", "1"),
        *("--tasks.0.source", "file:none.jsonl", "--adapter.num_clusters", "7"),
    )
    assert done.returncode == 2
    assert "3 problems found" in done.stderr
    for message in ("did you mean --seed", "no file 'none.jsonl'", "--adapter.num_clusters: is 7 but"):
        assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "cache").exists()


def test_a_negative_number_of_examples_to_show_is_refused():
    done = launch("--config", "quickstart", "--show", "-1")
    assert done.returncode == 2
    assert "--show: must be at least 0, got -1 (command line)" in done.stderr
