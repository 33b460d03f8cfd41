"""trex-ds plan as it is started."""

from __future__ import annotations

import json
import runpy
import shutil
import sys
from pathlib import Path

import pytest

from tests.training.jobs import write_recipe

SCRIPT = Path(__file__).parents[2] / "launch" / "plan.py"


def run(monkeypatch, *arguments) -> None:
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *map(str, arguments)])
    runpy.run_path(str(SCRIPT), run_name="__main__")


@pytest.fixture
def recipe(tmp_path):
    file = write_recipe(tmp_path)
    for weights in (tmp_path / "model").glob("*.safetensors"):
        weights.unlink()
    return file


def test_a_plan_is_printed_and_written_for_a_model_without_weights(recipe, tmp_path, monkeypatch, capsys):
    # What an earlier run left does not matter to a plan.
    (tmp_path / "run" / "checkpoint-3").mkdir(parents=True)
    run(monkeypatch, "--config", recipe, "--gpus", 2, "--gpu_memory", 8, "--output", tmp_path / "plan.json")
    printed = capsys.readouterr().out
    made = json.loads((tmp_path / "plan.json").read_text())
    assert made["trained_parameters"] == 5212
    assert made["roles"]["router"]["parameters"] == 2880
    assert made["overrides"] in printed
    assert "assumed, not measured" in printed
    assert made["as_written"]["problem"] is None
    assert made["environment"]["versions"]["deepspeed"]


def test_the_recommended_overrides_are_taken_by_the_recipe(recipe, tmp_path, monkeypatch):
    output = tmp_path / "plan.json"
    run(monkeypatch, "--config", recipe, "--output", output)
    first = json.loads(output.read_text())
    run(monkeypatch, "--config", recipe, "--output", output, *first["overrides"].split())
    second = json.loads(output.read_text())
    assert second["as_written"] == first["recommended"]


def test_everything_wrong_is_said_at_once_with_code_2(recipe, tmp_path, monkeypatch, capsys):
    shutil.rmtree(tmp_path / "model")
    wrong = ["--gpus", "0", "--gpu_memory", "lots", "--node", "2", "--assumptions.free_share", "1.5"]
    with pytest.raises(SystemExit) as ended:
        run(monkeypatch, "--config", recipe, *wrong)
    assert ended.value.code == 2
    said = capsys.readouterr().err
    for problem in (
        "gpus: must be more than 0, got 0",
        'gpu_memory: must be a number, got "lots"',
        "--node: unknown key; did you mean --nodes?",
        "assumptions.free_share: must be less than 1",
        "model",
    ):
        assert problem in said
    assert "Traceback" not in said
