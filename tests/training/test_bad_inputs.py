"""What a wrong recipe, data or machine is answered with, before anything expensive starts."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from tests.intuition.planted import planted_centroids
from tests.training.jobs import write_recipe
from trex_ds.adapter_folder import CENTROIDS_FILE
from trex_ds.config import ConfigError, read_recipe
from trex_ds.intuition.centroids import Centroids
from trex_ds.launching.processes import check_processes_fit
from trex_ds.training.job import prepare
from trex_ds.training.recipe import Recipe

CPU = torch.device("cpu")


def read(file: Path, *arguments: str) -> Recipe:
    return read_recipe(Recipe, ["--config", str(file), *arguments], "")


@pytest.mark.parametrize(
    ("arguments", "messages"),
    [
        (["--training.lerning_rate", "1"], ["unknown key", "did you mean --training.learning_rate"]),
        (["--model.name", "/nowhere/model"], ["model.name", "'/nowhere/model'", "neither an existing folder"]),
        (["--model.name", "embedded:smollm"], ["model.name", "the only one is embedded:smollm2-135m-instruct"]),
        (["--tasks.0.source", "gym:silogism"], ["tasks.0.source", "did you mean gym:syllogism"]),
        (["--tasks.0.source", "file:none.jsonl"], ["tasks.0.source", "no file 'none.jsonl'"]),
        (["--tasks", "[]"], ["tasks"]),
        (["--adapter.num_clusters", "7"], ["num_clusters: is 7", "is 6", "'mapped' takes any number"]),
        (["--training.deepspeed", "none.json"], ["training.deepspeed", "no file 'none.json'"]),
        (["--model.dtype", "bfloat16"], ["training.deepspeed", "bf16.enabled: false", "bfloat16"]),
        (["--model.quantization", "int8"], ["model.quantization", "bitsandbytes issue 1451", "use nf4"]),
        (["--training.resume", "true"], ["training.resume", "no checkpoint"]),
        (["--intuition.centroids", "/nowhere"], ["intuition.centroids", "no centroids at /nowhere"]),
        (["--tracking.uri", "htp://host"], ["tracking.uri", "did you mean http"]),
    ],
)
def test_wrong_recipe(tmp_path, arguments, messages):
    with pytest.raises(ConfigError) as caught:
        read(write_recipe(tmp_path), *arguments)
    for message in messages:
        assert message in str(caught.value)


def test_all_problems_are_named_at_once(tmp_path):
    with pytest.raises(ConfigError) as caught:
        read(write_recipe(tmp_path), "--model.name", "/nowhere", "--tasks.0.source", "file:none.jsonl", "--sed", "1")
    assert len(caught.value.problems) == 3


def test_checkpoints_of_another_run_are_not_overwritten(tmp_path):
    file = write_recipe(tmp_path)
    (tmp_path / "run" / "checkpoint-5").mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"checkpoint-5 of an earlier run; resume from it with --training.resume t"):
        read(file)


def test_deepspeed_configuration_that_spoils_weights_in_4_bits(tmp_path):
    file = write_recipe(tmp_path)
    config = json.loads((tmp_path / "zero3.json").read_text())
    config["zero_optimization"] |= {"zero_quantized_weights": True, "offload_param": None}
    (tmp_path / "zero3.json").write_text(json.dumps(config))
    read(file)
    with pytest.raises(ConfigError, match="zero_quantized_weights, which changes weights"):
        read(file, "--model.quantization", "nf4")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fp16": {"enabled": True}}, "has fp16 enabled; models are trained in bf16 or float32"),
        (
            {"zero_optimization": {"offload_param": {"device": "nvme", "nvme_path": "/no/disk"}}},
            "zero_optimization.offload_param.nvme_path: '/no/disk', which is not a folder",
        ),
    ],
)
def test_deepspeed_configuration_that_cannot_run(tmp_path, change, message):
    file = write_recipe(tmp_path)
    config = json.loads((tmp_path / "zero3.json").read_text())
    (tmp_path / "zero3.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(ConfigError, match=message):
        read(file)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (['{"prompt": "a", "answer": "b"}', '{"prompt": "c"}'], r"tasks.jsonl.*\n.*2.*answer is missing"),
        ([], "no examples"),
    ],
)
def test_bad_data_names_file_and_line(tmp_path, lines, message):
    file = write_recipe(tmp_path)
    (tmp_path / "tasks.jsonl").write_text("\n".join(lines))
    with pytest.raises(ConfigError, match=message):
        prepare(read(file), CPU)


def test_more_clusters_than_prompts(tmp_path):
    file = write_recipe(tmp_path)
    recipe = read(
        file, "--adapter.num_clusters", "60", "--adapter.num_in_experts", "6", "--adapter.num_out_experts", "10"
    )
    with pytest.raises(ConfigError, match="60 clusters need as many distinct training prompts, but there are 2"):
        prepare(recipe, CPU)


def test_centroids_of_another_embedder(tmp_path):
    file = write_recipe(tmp_path)
    centroids = prepare(read(file), CPU).centroids
    other = dataclasses.replace(centroids, embedder=dataclasses.replace(centroids.embedder, weights="0" * 16))
    other.save(tmp_path / "other")
    with pytest.raises(ConfigError, match="made with another embedder"):
        prepare(read(file, "--intuition.centroids", str(tmp_path / "other")), CPU)


def test_centroids_of_another_number_and_damaged_ones(tmp_path):
    file = write_recipe(tmp_path)
    planted_centroids(5).save(tmp_path / "five")
    given = ("--intuition.centroids", str(tmp_path / "five"))
    with pytest.raises(ConfigError, match=r"five has 5 clusters but adapter.num_clusters is \d"):
        read(file, *given)
    saved = tmp_path / "five" / CENTROIDS_FILE
    saved.write_bytes(saved.read_bytes()[:-10])
    with pytest.raises(ConfigError, match="is damaged or not a centroids file"):
        read(file, *given)


def test_given_centroids_are_used(tmp_path):
    file = write_recipe(tmp_path)
    centroids = prepare(read(file), CPU).centroids
    kept = Path(centroids.save(tmp_path / "kept"))
    again = prepare(read(file, "--intuition.centroids", str(kept.parent), "--intuition.seed", "9"), CPU).centroids
    assert again.fingerprint == Centroids.load(kept).fingerprint == centroids.fingerprint


def test_more_processes_than_the_machine_has(monkeypatch):
    monkeypatch.setenv("LOCAL_SIZE", "4096")
    with pytest.raises(ConfigError, match=r"4096 processes were started .* start at most \d+"):
        check_processes_fit()
