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

from tests.data.tokenizers import CHATML, make_tokenizer
from tests.ranks import run_ranks
from tests.tasks import mirrors
from tests.training.jobs import ZERO3, run_job, write_recipe
from trex_ds.answering import Answerer
from trex_ds.intuition.centroids import Centroids

ALONE = {
    "training__micro_batch_size": 4,
    "training__deepspeed": "no_zero.json",
}
CHECKPOINTED = {
    "output_dir": "checkpointed",
    "training__micro_batch_size": 1,
    "training__gradient_accumulation_steps": 2,
    "training__gradient_checkpointing": True,
    "training__deepspeed": "defaults.json",
    "evaluation__gather_weights": True,
    "evaluation__batch_size": 5,
    "evaluation__every": 2,
}


FILE_ALONE = "a file"
MIXTURE = "a packed mixture"
EVALUATED = {FILE_ALONE: 12, MIXTURE: 22}
BENCHMARK = "boolq"


@pytest.fixture(scope="module", params=[FILE_ALONE, MIXTURE])
def data(request) -> str:
    """A file, an example a row; or a file, a gym task and one of lm-eval, mixed by a temperature and packed."""
    return request.param


of_the_mixture = pytest.mark.parametrize("data", [MIXTURE], indirect=True, scope="module")


def write_job(folder: Path, data: str, **overrides: Any) -> Path:
    if data == FILE_ALONE:
        return write_recipe(folder, **overrides)
    rows = {"train": mirrors.boolq(30), "validation": mirrors.boolq(7, 100)}
    mirrors.write_dataset(folder / "mirror", "aps/super_glue", {"boolq": rows})
    return write_recipe(
        folder,
        tasks=[
            {"source": f"file:{folder}/tasks.jsonl", "evaluation_fraction": 0.3},
            {"source": f"lm_eval:{BENCHMARK}", "weight": 1.5},
            {"source": "gym:spell_backward", "train_examples": 12, "evaluation_examples": 3},
        ],
        data={
            "system_prompt": "",
            "cache": str(folder / "cache"),
            "mirror": str(folder / "mirror"),
            "max_length": 128,
            "mixing": "temperature",
            "temperature": 2.0,
        },
        **overrides,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory, data) -> Path:
    return tmp_path_factory.mktemp("jobs")


@pytest.fixture(scope="module")
def alone(tmp_path_factory, data) -> dict[str, Any]:
    """One process, no ZeRO, no accumulation, no checkpointing."""
    folder = tmp_path_factory.mktemp("alone")
    plain = {**ZERO3, "zero_optimization": {"stage": 0}}
    (folder / "no_zero.json").write_text(json.dumps(plain))
    file = write_job(folder, data, **{**ALONE, "training__deepspeed": str(folder / "no_zero.json")})
    (result,) = run_ranks(1, folder, run_job, file)
    return result


def jobs_of_two_ranks(sharded: Path, checkpointed: Path, resumed: Path, without_cache: bool) -> list[dict[str, Any]]:
    results = [run_job(sharded), run_job(checkpointed)]
    folder = sharded.parent
    for caches in (None, folder / "cache") if without_cache else (None,):
        # As if the job had died after its first checkpoint.
        if torch.distributed.get_rank() == 0:
            shutil.rmtree(folder / "run" / "checkpoint-4")
            (folder / "run" / "adapter").rename(folder / f"adapter_{len(results)}")
            if caches is not None:
                shutil.rmtree(caches)
        torch.distributed.barrier()
        results.append(run_job(resumed))
    return results


@pytest.fixture(scope="module")
def together(folder, data) -> list[list[dict[str, Any]]]:
    """Results per rank: ZeRO-3; ZeRO-3 with checkpointing, accumulation and gathered weights; the first resumed.

    The mixture is resumed once more, without the cache of prepared data.
    """
    sharded = write_job(folder, data, training__save_every=2, training__max_steps=4)
    text = sharded.read_text().replace("timeout_minutes: 2", "timeout_minutes: 2\n  resume: true")
    resumed = folder / "resumed.yaml"
    resumed.write_text(text)
    # DeepSpeed's defaults: what is small stays whole, and gathered weights are kept for a while.
    kept = {"stage": 3}
    (folder / "defaults.json").write_text(json.dumps({**ZERO3, "zero_optimization": kept}))
    paths = {"output_dir": str(folder / "checkpointed"), "training__deepspeed": str(folder / "defaults.json")}
    checkpointed = write_job(folder, data, **{**CHECKPOINTED, **paths})
    return run_ranks(2, folder, jobs_of_two_ranks, sharded, checkpointed, resumed, data == MIXTURE)


def tensors(adapter: Path) -> dict[str, torch.Tensor]:
    return load_file(adapter / "adapter_model.safetensors")


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


def test_resumed_job_repeats_the_losses_and_the_adapter(together, folder, data):
    before, after = together[0][0]["losses"], together[0][2]["losses"]
    # The file has both runs' lines; the later line of a step is the resumed job's.
    assert set(after) == {1, 2, 3, 4}
    assert {step: after[step] for step in (3, 4)} == {step: before[step] for step in (3, 4)}
    assert together[0][2]["adapted"] == together[0][0]["adapted"]
    uninterrupted = tensors(folder / "adapter_2")
    resumed = tensors(folder / ("adapter_3" if data == MIXTURE else "run/adapter"))
    assert resumed.keys() == uninterrupted.keys()
    for key, tensor in resumed.items():
        assert torch.equal(tensor, uninterrupted[key]), key


@of_the_mixture
def test_job_resumed_without_the_cache_prepares_the_same(together, folder):
    before, after = together[0][0]["losses"], together[0][3]["losses"]
    # Scores are made again with the clusters that are kept, in other batches than those they were fitted from.
    assert {step: after[step] for step in (3, 4)} == pytest.approx({step: before[step] for step in (3, 4)}, abs=2e-6)
    assert Centroids.load(folder / "run").fingerprint == Centroids.load(folder / "adapter_2").fingerprint
    torch.testing.assert_close(tensors(folder / "run" / "adapter"), tensors(folder / "adapter_2"), rtol=0, atol=1e-4)


def test_each_example_is_answered_once_whatever_the_ranks_and_batches(alone, together, data):
    prompts = [item.prompt for item in alone["base"]]
    assert len(prompts) == len(set(prompts)) == EVALUATED[data]
    for job in (together[0][0], together[0][1], together[1][0], together[1][1]):
        assert job["base"] == alone["base"]
        assert [item.prompt for item in job["adapted"]] == prompts


def test_ranks_agree_on_the_result(together):
    for first, second in zip(*together, strict=True):
        assert first["adapted"] == second["adapted"]


def test_training_moves_every_kind_of_parameter(together, folder):
    found = tensors(folder / "run" / "adapter")
    assert {key.rpartition(".")[2] for key in found} == {"trex_A", "trex_B", "W_r", "omega", "gamma"}
    for key, tensor in found.items():
        assert tensor.abs().max() > 0, key
        assert tensor.dtype == torch.float32


def test_saved_adapter_answers_raw_text_as_the_job_did(together, folder, data, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # nothing may be read from the working directory
    answerer = Answerer.from_adapter(folder / "run" / "adapter")
    # lm-eval compares choices and generates nothing.
    items = [item for item in together[0][-1]["adapted"] if item.task != BENCHMARK]
    prompts = [item.prompt for item in items]
    if data == MIXTURE:
        with pytest.raises(
            ValueError, match=r"as they stand \(lm_eval:boolq\) and .* to an assistant \(file:.*, gym:spell"
        ):
            answerer(prompts)
    generated = [item.generated for item in items]
    assert answerer(prompts, max_new_tokens=6, form="chat") == generated
    # The template that it was trained with, whatever the base model's is now.
    model = shutil.copytree(folder / "model", tmp_path / "model")
    make_tokenizer(CHATML.replace("<|im_start|>", "<s>")).save_pretrained(model)
    moved = Answerer.from_adapter(folder / "run" / "adapter", model=str(model))
    assert moved(prompts, max_new_tokens=6, form="chat") == generated


def measure_by_harness(folder: Path) -> None:
    from trex_ds.lm_evaluation.arguments import parse
    from trex_ds.lm_evaluation.run import run

    options = ["--adapter", str(folder / "run" / "adapter"), "--mirror", str(folder / "mirror"), "--batch_size", "3"]
    run(parse(["--tasks", BENCHMARK, "--output", str(folder / "harness"), *options], ""))


@of_the_mixture
def test_benchmark_is_scored_by_lm_evals_own_metric(together, folder):
    run_ranks(1, folder, measure_by_harness, folder)
    for evaluation, samples in (("adapted", "samples"), ("base", "samples_base")):
        own = [item for item in together[0][-1][evaluation] if item.task == BENCHMARK]
        lines = (folder / "harness" / samples / f"{BENCHMARK}.jsonl").read_text().splitlines()
        assert [item.score for item in own] == [json.loads(line)["acc"] for line in lines]
        assert {item.generated for item in own} <= {"yes", "no"}
        assert len(own) == 7
        assert {item.score for item in own} == {0.0, 1.0}


def test_adapter_folder_without_a_file_is_refused_by_its_name(together, folder, tmp_path):
    for name in ("adapter_config.json", "adapter_model.safetensors", "centroids.safetensors", "recipe.yaml"):
        copy = shutil.copytree(folder / "run" / "adapter", tmp_path / name)
        (copy / name).unlink()
        with pytest.raises(FileNotFoundError, match=f"has no {name}"):
            Answerer.from_adapter(copy)


def test_mlflow_holds_one_run_a_job_with_all_of_it(together, folder, data):
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    experiment = client.get_experiment_by_name("trex_ds")
    runs = client.search_runs([experiment.experiment_id], order_by=["attributes.start_time"])
    assert [run.info.status for run in runs] == ["FINISHED"] * len(together[0])
    first, second = runs[:2]
    assert first.data.params["training.learning_rate"] == "0.01"
    assert first.data.params["tasks.0.source"].startswith("file:")
    assert first.data.tags["method"] == "trex"
    for name in ("train/loss", "train/learning_rate", "train/tokens_per_second", "eval/sum/accuracy", "eval/mean/n"):
        assert name in first.data.metrics
    assert first.data.metrics["eval/mean/n"] == EVALUATED[data]
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
    assert dataclasses.asdict(alone["base"][0]).keys() == {"task", "prompt", "answer", "generated", "score", "choice"}
