"""The adapter that is kept, and what is reported about it, through a whole job whose answers are scripted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.ranks import run_ranks
from tests.training.jobs import run_job, write_recipe
from trex_ds.evaluation.accuracy import Evaluation, Item
from trex_ds.training import measuring

# Held-out accuracy by step. 3 is only as good as 2, 5 is the best of the resumed half and worse than 2.
SCRIPT = {1: 0.25, 2: 0.75, 3: 0.75, 4: 0.0, 5: 0.5, 6: 0.25}


class KilledError(Exception):
    pass


def step_of(description: str) -> int | None:
    """Step number in "accuracy, step 2, held out"; None for an evaluation of all examples."""
    return int(description.split("step ")[1].split(",")[0]) if "held out" in description else None


class Script:
    """A stand-in for `evaluate`: scores by step, and keeps what the adapter was at each."""

    def __init__(self, dies_at: int | None = None):
        self.dies_at = dies_at
        self.adapters: dict[int, dict[str, torch.Tensor]] = {}
        self.descriptions: list[str] = []

    def __call__(
        self, model: Any, tokenizer: Any, questions: Any, config: Any, device: Any, description: str, **_: Any
    ):
        step = step_of(description)
        if step is not None and step == self.dies_at:
            raise KilledError
        self.descriptions.append(description)
        if step is not None:
            self.adapters[step] = weights(model)
        # Tasks differ, and their mean is the script's value.
        value = 0.5 if step is None else SCRIPT[step]
        names = list(dict.fromkeys(q.example.task for q in questions))
        scores = {name: value + 0.125 * (-1) ** i for i, name in enumerate(names)}
        return Evaluation([Item(q.example.task, q.example.text, "", "", scores[q.example.task]) for q in questions])


def weights(model: Any) -> dict[str, torch.Tensor]:
    import deepspeed

    trained = {name.replace(".default", ""): p for name, p in model.named_parameters() if p.requires_grad}
    sharded = any(hasattr(p, "ds_id") for p in trained.values())
    with deepspeed.zero.GatheredParameters(list(trained.values()), enabled=sharded):
        return {name: p.detach().clone() for name, p in trained.items()}


def run_script(file: Path, dies_at: int | None = None) -> dict[str, Any]:
    script = Script(dies_at)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measuring, "evaluate", script)
        try:
            run_job(file)
        except KilledError:
            assert dies_at
    return vars(script)


def interrupted_and_resumed(file: Path, resumed: Path) -> list[dict[str, Any]]:
    first = run_script(file, dies_at=3)
    best = json.loads((file.parent / "run" / "best.json").read_text())
    return [first | {"best": best}, run_script(resumed)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("measuring")


@pytest.fixture(scope="module")
def runs(folder) -> list[dict[str, Any]]:
    """A job under ZeRO-3 that ended while it measured step 3, and the same resumed after step 2."""
    recipe = {"training__max_steps": 6, "training__save_every": 2, "evaluation__every": 1}
    file = write_recipe(folder, **recipe)
    resumed = folder / "resumed.yaml"
    resumed.write_text(file.read_text().replace("timeout_minutes: 2", "timeout_minutes: 2\n  resume: true"))
    (results,) = run_ranks(1, folder, interrupted_and_resumed, file, resumed)
    return results


def metrics(folder: Path) -> dict[str, list[tuple[int, float]]]:
    found: dict[str, list[tuple[int, float]]] = {}
    for line in map(json.loads, (folder / "run" / "metrics.jsonl").read_text().splitlines()):
        for name, value in line["metrics"].items():
            found.setdefault(name, []).append((line["step"], value))
    return found


def saved(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "adapter_model.safetensors")


def assert_is(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> None:
    assert found.keys() == wanted.keys()
    for name, tensor in found.items():
        assert torch.equal(tensor, wanted[name]), name


def test_every_step_was_measured_and_none_twice(runs):
    first, resumed = runs
    assert list(first["adapters"]) == [1, 2]
    assert list(resumed["adapters"]) == [3, 4, 5, 6]
    assert first["descriptions"][0] == "accuracy, base model"
    assert "accuracy, base model" not in resumed["descriptions"]
    assert resumed["descriptions"][-1] == "accuracy, step 2"


def test_best_adapter_is_kept_over_a_resume_and_is_the_jobs(runs, folder):
    first, resumed = runs
    assert first["best"] == {"mean": 0.75, "step": 2, "last_step": 2}
    assert json.loads((folder / "run" / "best.json").read_text()) == {"mean": 0.75, "step": 2, "last_step": 6}
    wanted = first["adapters"][2]
    assert_is(saved(folder / "run" / "best"), wanted)
    assert_is(saved(folder / "run" / "adapter"), wanted)
    for other in (first["adapters"][1], *resumed["adapters"].values()):
        assert any(not torch.equal(other[name], tensor) for name, tensor in wanted.items())


def test_metrics_have_the_names_and_steps_of_what_was_measured(runs, folder):
    found = metrics(folder)
    assert found["held_out/mean/accuracy"] == list(SCRIPT.items())
    names = [name for name in found if name.startswith("held_out/") and name.endswith("/accuracy")]
    assert sorted(names) == ["held_out/mean/accuracy", "held_out/spell/accuracy", "held_out/sum/accuracy"]
    spell, total = (dict(found[f"held_out/{task}/accuracy"]) for task in ("spell", "sum"))
    assert {step: (spell[step] + total[step]) / 2 for step in SCRIPT} == SCRIPT
    assert spell != total
    assert [step for step, _ in found["eval/mean/accuracy"]] == [0, 6]
    assert {"eval/spell/accuracy", "eval/sum/standard_error", "eval/mean/n"} <= found.keys()
    assert found["held_out/best_step"] == [(6, 2)]


def test_each_measurement_leaves_its_file(runs, folder):
    names = {file.name for file in (folder / "run").glob("evaluation_*.json")}
    assert names == {f"evaluation_held_out_{step}.json" for step in SCRIPT} | {
        "evaluation_base.json",
        "evaluation_6.json",
    }
    assert Evaluation.load(folder / "run" / "evaluation_held_out_2.json").mean().value == 0.75


def best_of_two_ranks(file: Path) -> dict[str, Any]:
    return run_script(file)


def test_best_adapter_of_two_ranks(tmp_path):
    file = write_recipe(tmp_path, training__max_steps=3, training__micro_batch_size=1, evaluation__every=1)
    first, second = run_ranks(2, tmp_path, best_of_two_ranks, file)
    assert_is(first["adapters"][2], second["adapters"][2])
    assert_is(saved(tmp_path / "run" / "adapter"), first["adapters"][2])


def train_without_evaluation(file: Path) -> dict[str, Any]:
    return run_job(file)


def test_job_without_evaluation_examples_ends_with_an_adapter(tmp_path):
    file = write_recipe(tmp_path, training__max_steps=1, evaluation={"max_new_tokens": 6})
    file.write_text(file.read_text().replace("evaluation_fraction: 0.3", "evaluation_examples: 0"))
    (result,) = run_ranks(1, tmp_path, train_without_evaluation, file)
    assert list(result["losses"]) == [1]
    assert result["adapted"] == []
    assert saved(tmp_path / "run" / "adapter")
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["mean"]["adapted"]["n"] == 0
