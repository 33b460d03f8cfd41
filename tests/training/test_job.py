"""Whole jobs: two ranks under ZeRO-3 against one process without it, resume, what a run leaves behind."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from mlflow import MlflowClient
from safetensors.torch import load_file

from tests.ranks import run_ranks
from tests.training.jobs import ZERO3, run_job, write_recipe
from trex_ds.answering import Answerer
from trex_ds.intuition import Centroids

ALONE = {
    "training__micro_batch_size": 4,
    "training__deepspeed": "no_zero.json",
}
CHECKPOINTED = {
    "output_dir": "checkpointed",
    "training__micro_batch_size": 1,
    "training__gradient_accumulation_steps": 2,
    "training__gradient_checkpointing": True,
    "evaluation__gather_weights": True,
    "evaluation__batch_size": 5,
    "evaluation__every": 2,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("jobs")


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> dict[str, Any]:
    """One process, no ZeRO, no accumulation, no checkpointing."""
    folder = tmp_path_factory.mktemp("alone")
    plain = {**ZERO3, "zero_optimization": {"stage": 0}}
    (folder / "no_zero.json").write_text(json.dumps(plain))
    file = write_recipe(folder, **{**ALONE, "training__deepspeed": str(folder / "no_zero.json")})
    (result,) = run_ranks(1, folder, run_job, file)
    return result


def jobs_of_two_ranks(sharded: Path, checkpointed: Path, resumed: Path) -> list[dict[str, Any]]:
    results = [run_job(sharded), run_job(checkpointed)]
    # As if the job had died after its first checkpoint.
    if torch.distributed.get_rank() == 0:
        shutil.rmtree(sharded.parent / "run" / "checkpoint-4")
        shutil.rmtree(sharded.parent / "run" / "adapter")
    torch.distributed.barrier()
    return [*results, run_job(resumed)]


@pytest.fixture(scope="module")
def together(folder) -> list[list[dict[str, Any]]]:
    """Per rank: ZeRO-3; ZeRO-3 with checkpointing, accumulation and whole weights in evaluation; the first resumed."""
    sharded = write_recipe(folder, training__save_every=2, training__max_steps=4)
    text = sharded.read_text().replace("timeout_minutes: 2", "timeout_minutes: 2\n  resume: true")
    resumed = folder / "resumed.yaml"
    resumed.write_text(text)
    checkpointed = write_recipe(folder, **{**CHECKPOINTED, "output_dir": str(folder / "checkpointed")})
    return run_ranks(2, folder, jobs_of_two_ranks, sharded, checkpointed, resumed)


def assert_equal_losses(mine: dict[int, float], theirs: dict[int, float]) -> None:
    steps = mine.keys() & theirs.keys()
    assert len(steps) >= 3
    for step in steps:
        assert mine[step] == pytest.approx(theirs[step], abs=2e-6)


def test_two_ranks_under_zero3_have_the_losses_of_one_process(alone, together):
    assert len(set(alone["losses"].values())) == 3
    assert_equal_losses(together[0][0]["losses"], alone["losses"])


def test_checkpointing_accumulation_and_evaluation_between_steps_change_no_loss(alone, together):
    assert_equal_losses(together[0][1]["losses"], alone["losses"])


def test_resumed_job_repeats_the_losses(together):
    before, after = together[0][0]["losses"], together[0][2]["losses"]
    # The file has both runs' lines; the later line of a step is the resumed job's.
    assert set(after) == {1, 2, 3, 4}
    assert {step: after[step] for step in (3, 4)} == {step: before[step] for step in (3, 4)}
    assert together[0][2]["adapted"] == together[0][0]["adapted"]


def test_each_example_is_answered_once_whatever_the_ranks_and_batches(alone, together):
    prompts = [item.prompt for item in alone["base"]]
    assert len(prompts) == len(set(prompts)) == 12
    for job in (together[0][0], together[0][1], together[1][0], together[1][1]):
        assert job["base"] == alone["base"]
        assert [item.prompt for item in job["adapted"]] == prompts


def test_ranks_agree_on_the_result(together):
    for first, second in zip(*together, strict=True):
        assert first["adapted"] == second["adapted"]


def test_training_moves_every_kind_of_parameter(together, folder):
    tensors = load_file(folder / "run" / "adapter" / "adapter_model.safetensors")
    kinds = {key.rpartition("trex_")[2] for key in tensors}
    assert kinds == {"A", "B", "router", "omega", "gamma"}
    for key, tensor in tensors.items():
        assert tensor.abs().max() > 0, key
        assert tensor.dtype == torch.float32


def test_saved_adapter_answers_raw_text_as_the_job_did(together, folder, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # nothing may be read from the working directory
    answerer = Answerer.from_adapter(folder / "run" / "adapter")
    items = together[0][2]["adapted"]
    assert answerer([item.prompt for item in items], max_new_tokens=3) == [item.generated for item in items]


def test_adapter_folder_without_a_file_is_refused_by_its_name(together, folder, tmp_path):
    for name in ("adapter_config.json", "adapter_model.safetensors", "centroids.safetensors", "recipe.yaml"):
        copy = shutil.copytree(folder / "run" / "adapter", tmp_path / name)
        (copy / name).unlink()
        with pytest.raises(FileNotFoundError, match=f"has no {name}"):
            Answerer.from_adapter(copy)


def test_mlflow_holds_one_run_a_job_with_all_of_it(together, folder):
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    experiment = client.get_experiment_by_name("trex_ds")
    runs = client.search_runs([experiment.experiment_id], order_by=["attributes.start_time"])
    assert [run.info.status for run in runs] == ["FINISHED"] * 3
    first, second, _ = runs
    assert first.data.params["training.learning_rate"] == "0.01"
    assert first.data.params["tasks.0.source"].startswith("file:")
    assert first.data.tags["method"] == "trex"
    for name in ("train/loss", "train/learning_rate", "train/tokens_per_second", "eval/sum/accuracy", "eval/mean/n"):
        assert name in first.data.metrics
    assert first.data.metrics["eval/mean/n"] == 12
    history = client.get_metric_history(second.info.run_id, "eval/mean/accuracy")
    assert sorted(point.step for point in history) == [0, 3]
    held_out = client.get_metric_history(second.info.run_id, "held_out/mean/accuracy")
    assert sorted(point.step for point in held_out) == [2, 3]
    assert second.data.metrics["held_out/best_step"] in (2, 3)
    assert second.data.metrics["data/spell/rows"] > 0
    losses = {point.step: point.value for point in client.get_metric_history(second.info.run_id, "train/loss")}
    assert losses == pytest.approx(together[0][1]["losses"])
    assert {f.path for f in client.list_artifacts(first.info.run_id)} >= {"adapter", "recipe.yaml"}
    files = {f.path.partition("/")[2] for f in client.list_artifacts(first.info.run_id, "adapter")}
    assert files >= {"adapter_config.json", "adapter_model.safetensors", "centroids.safetensors", "recipe.yaml"}


def test_adapter_carries_the_centroids_it_was_trained_with(together, folder):
    saved = Centroids.load(folder / "run" / "adapter")
    assert saved.fingerprint == Centroids.load(folder / "run").fingerprint
    config = json.loads((folder / "run" / "adapter" / "adapter_config.json").read_text())
    assert config["centroids_fingerprint"] == saved.fingerprint
    assert config["peft_type"] == "TREX"


def test_items_are_plain_data(alone):
    assert dataclasses.asdict(alone["base"][0]).keys() == {"task", "prompt", "answer", "generated", "score"}
