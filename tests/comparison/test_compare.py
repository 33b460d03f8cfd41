"""Whole comparisons: what is equal among runs, a failing run, a killed one, going on, tuning, and what MLflow holds."""

from __future__ import annotations

import csv
import gc
import json
import os
import runpy
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from tests.comparison.jobs import SMALL, run_comparison, write_comparison
from tests.ranks import run_ranks, run_to_the_end
from tests.training.jobs import ROOT, losses
from trex_ds.config import ConfigError

BAD = SMALL | {"dropout": 0.1}
UNFIT = ["--methods.bad.target_modules", "[absent]"]


def state(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "run.json").read_text())


def thrice(file: Path) -> tuple[dict[str, Any], dict[str, Any], list[str], int]:
    """A comparison of which a method fails when it is to be saved; the same again; what others in its folder are told.

    And how many models are alive after the first.
    """
    from peft import PeftModel

    from trex_ds.training import job

    real = job.save_adapter

    def save_adapter(trainer: Any, recipe: Any, adapter: Path) -> None:
        if "bad" in recipe.output_dir:
            raise OSError("the disk is full")
        real(trainer, recipe, adapter)

    vars(job)["save_adapter"] = save_adapter
    first = run_comparison(file)
    alive = sum(isinstance(thing, PeftModel) for thing in gc.get_objects())
    again = run_comparison(file)
    refused = []
    for options in (["--training.weight_decay", "0.1"], UNFIT):
        with pytest.raises(ConfigError) as raised:
            run_comparison(file, *options)
        refused.append(str(raised.value))
    return first, again, refused, alive


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("comparison")


@pytest.fixture(scope="module")
def together(folder) -> tuple[dict[str, Any], dict[str, Any], list[str], int]:
    """Two ranks; of two methods one fails in every run, and one of three tasks is not trained on."""
    (folder / "unseen.jsonl").write_text('{"prompt": "say no", "answer": "no", "task": "refusal"}\n')
    tasks = [
        {"source": f"file:{folder}/tasks.jsonl", "evaluation_fraction": 0.3},
        {"source": f"file:{folder}/unseen.jsonl", "train_examples": 0},
    ]
    methods = {"small": SMALL, "bad": BAD}
    file = write_comparison(folder, methods=methods, reference="small", baselines=["small"], tasks=tasks)
    first, second = run_ranks(2, folder, thrice, file)
    assert first == second
    return first


def runs(content: dict[str, Any]) -> dict[str, dict[int, dict[str, Any]]]:
    return {method["name"]: {run["seed"]: run for run in method["runs"]} for method in content["methods"]}


def test_one_failing_method_does_not_lose_the_others(together, folder):
    found = runs(together[0])
    assert {name: [run["status"] for run in own.values()] for name, own in found.items()} == {
        "small": ["finished"] * 2,
        "bad": ["failed"] * 2,
        "lora_equal": ["finished"] * 2,
    }
    assert state(folder / "comparison" / "bad" / "seed_1")["error"] == "OSError: the disk is full"
    assert "bad, seed 0 failed: OSError: the disk is full." in together[0]["notes"]


def test_all_methods_train_on_the_same_tokens_in_the_same_order(together):
    found = runs(together[0])
    for seed in (0, 1):
        seen = {
            (run["result"]["tokens_seen"], run["result"]["data_checksum"])
            for run in (found[m][seed] for m in found if m != "bad")
        }
        assert len(seen) == 1
    small = found["small"]
    assert small[0]["result"]["data_checksum"] != small[1]["result"]["data_checksum"]
    assert small[0]["result"]["tokens_seen"] > 100


def test_tasks_that_are_not_trained_on_are_named_as_they_are_evaluated(together):
    assert together[0]["untrained_tasks"] == ["refusal"]
    assert {"refusal", "spell", "sum"} == set(together[0]["base_tasks"])


def test_methods_and_seeds_differ_in_what_they_learn(together, folder):
    curves = [
        tuple(losses(folder / "comparison" / method / f"seed_{seed}").values())
        for method in ("small", "lora_equal")
        for seed in (0, 1)
    ]
    assert len(set(curves)) == len(curves)


def test_base_model_is_asked_once(together, folder):
    files = [*(folder / "comparison").glob("*/seed_*/evaluation_base.json")]
    assert len(files) == 6
    assert len({file.read_text() for file in files}) == 1


def test_finished_runs_are_not_made_again(together, folder):
    first, again, _, _ = together
    for method, own in runs(first).items():
        for seed, run in own.items():
            assert runs(again)[method][seed] == run
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    experiment = client.get_experiment_by_name("trex_ds")
    assert len(client.search_runs([experiment.experiment_id])) == 1 + 6


def test_another_recipe_in_the_same_folder_is_refused_with_what_differs(together):
    changed, _ = together[2]
    assert "training.weight_decay (0.0, now 0.1)" in changed
    assert "choose another output_dir" in changed
    assert changed.startswith("4 problems found")


def test_a_method_that_does_not_fit_the_model_is_refused_before_anything_runs(together):
    _, unfit = together[2]
    assert unfit.startswith("1 problem found\n  methods.bad: target_modules: 'absent' is none of the model's")


def test_models_do_not_pile_up(together):
    assert together[3] <= 1  # of six: the last is freed by the next


def test_every_run_is_a_child_of_the_comparison_in_mlflow(together, folder):
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    experiment = client.get_experiment_by_name("trex_ds").experiment_id
    (parent,) = client.search_runs([experiment], "tags.stage = 'comparison'")
    assert together[0]["mlflow_run"] == parent.info.run_id
    children = client.search_runs([experiment], f"tags.mlflow.parentRunId = '{parent.info.run_id}'")
    assert sorted((run.data.tags["method"], run.data.tags["seed"]) for run in children) == [
        (method, seed) for method in ("bad", "lora_equal", "small") for seed in ("0", "1")
    ]
    one = next(run for run in children if run.data.tags["method"] == "small")
    assert one.data.tags["stage"] == "final"
    assert one.data.tags["model"] == str(folder / "model")
    assert len(one.data.tags["recipe_hash"]) == 12
    assert one.data.tags["git_commit"]
    names = ("train/loss", "train/step_seconds", "train/tokens_seen", "eval/sum/accuracy", "system/training/peak_bytes")
    for name in names:
        assert name in one.data.metrics
    assert {run.info.status for run in children if run.data.tags["method"] == "bad"} == {"FAILED"}
    assert "comparison/small/accuracy" in parent.data.metrics
    assert {f.path for f in client.list_artifacts(parent.info.run_id)} >= {
        "comparison.json",
        "comparison.md",
        "pareto.png",
        "scores.csv",
    }


def test_every_answer_of_every_run_has_its_score(together, folder):
    with (folder / "comparison" / "scores.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    for method in together[0]["methods"]:
        scores: dict[tuple[str, str], list[float]] = {}
        for row in rows:
            if row["method"] == method["name"]:
                scores.setdefault((row["seed"], row["task"]), []).append(float(row["score"]))
        if method["accuracy"] is not None:
            trained = [own for (_, task), own in scores.items() if task not in together[0]["untrained_tasks"]]
            assert 0 < len(trained) < len(scores)
            mean = sum(sum(own) / len(own) for own in trained) / len(trained)
            assert mean == pytest.approx(method["accuracy"]["value"])
            assert mean == pytest.approx(sum(run["accuracy"] for run in method["runs"]) / len(method["runs"]))
        else:
            assert not scores


def test_report_has_every_method_pair_and_note(together, folder):
    text = (folder / "comparison" / "comparison.md").read_text()
    for line in (
        "| small | 0.01 |",
        "| best guess |",
        "| base model |",
        "| small | lora_equal | 2 |",
        "learning rate 0.01, and the scale",
    ):
        assert line in text
    assert (folder / "comparison" / "pareto.png").read_bytes()[1:4] == b"PNG"
    content = together[0]
    assert [(pair["method"], pair["baseline"]) for pair in content["pairs"]] == [("small", "lora_equal")]
    assert content["environment"]["ranks"] == 2


def test_statistics_can_be_made_again_from_the_scores(together, folder, tmp_path, monkeypatch):
    made = folder / "comparison"
    for name in ("comparison.json", "scores.csv"):
        shutil.copy(made / name, tmp_path)
    shutil.copy(folder / "comparison.yaml", tmp_path / "recipe.yaml")
    content = json.loads((tmp_path / "comparison.json").read_text())
    wrong = {"value": 0.9, "low": 0.9, "high": 0.9, "p": 0.0}
    spoilt = content | {
        "pairs": [],
        "best_guess": 0.9,
        "methods": [m | {"accuracy": wrong} for m in content["methods"]],
    }
    (tmp_path / "comparison.json").write_text(json.dumps(spoilt))
    monkeypatch.setattr(sys, "argv", ["recompute.py", str(tmp_path)])
    runpy.run_path(str(ROOT / "benchmarks" / "recompute.py"), run_name="__main__")
    again = json.loads((tmp_path / "comparison.json").read_text())
    assert again.pop("recomputed")["versions"]
    assert again == content
    assert (tmp_path / "comparison.md").read_text() == (made / "comparison.md").read_text()


def killed(file: Path) -> None:
    """The comparison in a process that a final run of the method "small" ends without a word."""
    from trex_ds.training import job

    real = job.run

    def run(recipe: Any, *rest: Any) -> Any:
        if "small" in recipe.output_dir:
            os._exit(9)
        return real(recipe, *rest)

    vars(job)["run"] = run
    run_comparison(file)


@pytest.fixture(scope="module")
def tuned(tmp_path_factory) -> tuple[Path, dict[str, Any], dict[str, Any]]:
    """One process with tuning, of whose candidates one diverges; killed in a final run, and started again."""
    folder = tmp_path_factory.mktemp("tuned")
    file = write_comparison(
        folder,
        methods={"small": SMALL},
        seeds=[3],
        tuning={"learning_rates": [1e-3, 1e-2, 1e25], "max_steps": 2},
        data__left_out=4,
    )
    ((code, _),) = run_to_the_end(1, folder, killed, file)
    assert code == 9
    left = json.loads((folder / "comparison" / "comparison.json").read_text())
    (content,) = run_ranks(1, folder, run_comparison, file)
    return folder / "comparison", left, content


def test_learning_rate_is_chosen_by_the_loss_on_left_out_examples(tuned):
    folder, _, content = tuned
    for method in content["methods"]:
        low, high, diverged = (method["tuning"][rate] for rate in ("0.001", "0.01", "1e+25"))
        assert high < low
        assert diverged is None
        assert method["learning_rate"] == 0.01
        state_of_it = state(folder / method["name"] / "tuning" / "lr_1e+25")
        assert state_of_it["status"] == "failed"
        assert "lower training.learning_rate" in state_of_it["error"] or "diverged" in state_of_it["error"]
        lines = [
            json.loads(line) for line in (folder / method["name"] / "seed_3" / "metrics.jsonl").read_text().splitlines()
        ]
        assert {
            line["metrics"]["train/learning_rate"] for line in lines if "train/learning_rate" in line["metrics"]
        } == {0.01}
    assert any("least loss after 2 steps" in note for note in content["notes"])
    assert any(note.startswith("small: no loss for the learning rate 1e+25: ") for note in content["notes"])
    assert " * | failed |\n" in (folder / "comparison.md").read_text()


def test_a_run_that_ended_the_job_is_tried_again_after_the_others(tuned):
    folder, _, content = tuned
    (small,) = runs(content)["small"].values()
    assert small["status"] == "finished"
    assert state(folder / "small" / "seed_3")["attempts"] == 2
    others = [folder / "lora_equal" / "seed_3" / "run.json", *folder.glob("*/tuning/*/run.json")]
    assert all(file.stat().st_mtime < (folder / "small" / "seed_3" / "run.json").stat().st_mtime for file in others)


def test_tuning_is_not_made_again_and_mlflows_run_goes_on(tuned):
    folder, left, content = tuned
    assert [method["tuning"] for method in left["methods"]] == [method["tuning"] for method in content["methods"]]
    assert left["mlflow_run"] == content["mlflow_run"]
    client = MlflowClient(f"sqlite:///{folder.parent}/mlflow.db")
    experiment = client.get_experiment_by_name("trex_ds").experiment_id
    found = client.search_runs([experiment], f"tags.mlflow.parentRunId = '{content['mlflow_run']}'")
    assert sum(run.data.tags["stage"] == "tuning" for run in found) == 6
    assert client.get_run(content["mlflow_run"]).info.status == "FINISHED"
